package member

import (
	"context"
	"encoding/hex"
	"fmt"

	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/internal/rpc"
)

// joins is a head's registrar, of which it is told whom it lets in, and whom not.
type joins struct {
	*auth.Registrar
	m *Member
}

// Join implements rpc.Registrar.
func (j joins) Join(ctx context.Context, token auth.Token, csr []byte) (auth.Grant, error) {
	if err := j.m.ready(); err != nil {
		return auth.Grant{}, err
	}
	g, err := j.Registrar.Join(ctx, token, csr)
	j.m.decided(ctx, access.Principal{Kind: access.Joiner, Token: hex.EncodeToString(token.ID[:])}, access.NodeJoin, fmt.Sprintf("node %q", auth.RequestName(csr)), err)
	return g, err
}

// Renew implements rpc.Registrar. What was let in stays so, and that is no news.
func (j joins) Renew(ctx context.Context, who auth.Identity, csr []byte) (auth.Grant, error) {
	return j.Registrar.Renew(ctx, who, csr)
}

// enlistRecorded is enlistOther, and tells of it: a node that is a head has the
// authority itself.
func (m *Member) enlistRecorded(ctx context.Context, who auth.Identity, addr string) (rpc.Enlisted, error) {
	if err := m.ready(); err != nil {
		return rpc.Enlisted{}, err
	}
	e, err := m.enlistOther(ctx, who, addr)
	m.decided(ctx, access.Certified(who), access.NodeHead, fmt.Sprintf("node %s is a head, at %s", who.Name, addr), err)
	return e, err
}

// ready is Config.Ready.
func (m *Member) ready() error {
	if m.cfg.Ready == nil {
		return nil
	}
	return m.cfg.Ready()
}

// decided is Config.Decided.
func (m *Member) decided(ctx context.Context, p access.Principal, a access.Action, object string, err error) {
	if m.cfg.Decided != nil {
		m.cfg.Decided(ctx, p, a, object, err)
	}
}
