package node

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/audit"
)

// Audit has what is decided recorded in a log, which is closed after the node. It
// is called once, before Join and Serve.
func (n *Node) Audit(l *audit.Log) { n.auditLog = l }

// record writes an event of somebody. What cannot be recorded the log says and
// counts: jobs go on, and what governs the cluster was not begun (recordable).
func (n *Node) record(p access.Principal, e audit.Event) {
	e.Who, e.Tenant, e.Token = p.String(), p.Tenant, p.Token
	_ = n.auditLog.Write(e)
}

// denied records a request that was refused.
func (n *Node) denied(p access.Principal, call, from string) {
	action := "unknown"
	if r, ok := access.Find(call); ok {
		action = string(r.Action)
	}
	n.record(p, audit.Event{From: from, Action: action, Object: call, Decision: audit.Denied})
}

// login records that a token is used, after a while in which it was not.
func (n *Node) login(p access.Principal, from string) {
	n.record(p, audit.Event{From: from, Action: "self.login", Decision: audit.Allowed})
}

// done records what became of something that was allowed.
func (n *Node) done(ctx context.Context, p access.Principal, action access.Action, object string, err error) {
	e := audit.Event{From: access.Addr(ctx), Action: string(action), Object: object, Decision: audit.Allowed}
	if err != nil {
		e.Decision, e.Why = audit.Failed, err.Error()
	}
	n.record(p, e)
}

// recordable returns an error where what is decided now could not be recorded.
func (n *Node) recordable() error {
	if err := n.auditLog.Ready(); err != nil {
		return &wray.Error{Code: wray.CodeStoreFull, Node: n.cfg.Name, Message: fmt.Sprintf("this cannot be recorded now, and is not done: %v", err),
			Hint: "make room where the audit log is kept: it goes on by itself"}
	}
	return nil
}

// of says of whom a request is that the node's own user makes for a tenant.
func (n *Node) of(tenant string) string {
	if tenant == "" || tenant == n.cfg.Tenant {
		return ""
	}
	return fmt.Sprintf(", of tenant %.70q", tenant)
}

// admitted records that a tenant's module was let in, or why not.
func (n *Node) admitted(tenant, name string, wasm []byte, err error) {
	if n.auditLog == nil || errors.Is(err, context.Canceled) {
		return
	}
	sum := sha256.Sum256(wasm)
	hash := hex.EncodeToString(sum[:])
	e := audit.Event{Who: "tenant " + tenant, Tenant: tenant, Action: "module.admit", Object: name + " sha256:" + hash, Decision: audit.Allowed}
	if err != nil {
		e.Decision, e.Why = audit.Failed, err.Error()
	}
	_ = n.auditLog.Write(e)
}

// audited reports whether what an action does is recorded, and not only that it is
// refused: all but reading.
func audited(a access.Action) bool { return !strings.HasSuffix(string(a), ".read") }

type objectKey struct{}

// withObject returns a context in which about notes what a request is about.
func withObject(ctx context.Context) (context.Context, *string) {
	s := new(string)
	return context.WithValue(ctx, objectKey{}, s), s
}

// about notes what a request is about, for the audit log.
func about(ctx context.Context, format string, args ...any) {
	if s, ok := ctx.Value(objectKey{}).(*string); ok {
		*s = fmt.Sprintf(format, args...)
	}
}
