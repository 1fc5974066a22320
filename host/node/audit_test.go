package node

import (
	"errors"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/audit"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/link"
)

// newAudited is a node that keeps a log, and its socket's server.
func newAudited(t *testing.T) (s *Server, l *audit.Log, dir string) {
	t.Helper()
	n, err := New(Config{Name: "test", CacheDir: t.TempDir(), Tenants: map[string]control.Tenant{"a": {}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if err := n.TakeJobs(t.TempDir(), 0); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	if l, err = audit.Open(dir, audit.Options{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	n.Audit(l)
	return &Server{n: n}, l, dir
}

// TestUnrecorded: what governs the cluster is not done where it cannot be recorded,
// and all else is.
func TestUnrecorded(t *testing.T) {
	s, l, _ := newAudited(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	governs := map[link.Kind]bool{clientwire.KindUserAdd: true, clientwire.KindUserSet: true, clientwire.KindUserRemove: true,
		clientwire.KindTokenCreate: true, clientwire.KindTokenRevoke: true, clientwire.KindToken: true, clientwire.KindOperator: true,
		clientwire.KindDrain: true, clientwire.KindRemove: true, clientwire.KindRekey: true, clientwire.KindTenantSet: true, clientwire.KindTenantLift: true}
	for kind := range link.Kind(100) {
		rule, there := access.Find(access.Message(kind))
		if !there {
			continue
		}
		_, err := s.handle(t.Context(), nil, link.Message{Kind: kind})
		if refused := errors.Is(err, wray.ErrStoreFull); refused != governs[kind] {
			t.Errorf("%s, message %d, where nothing is recorded: %v", rule.Action, kind, err)
		}
	}
}

// TestUnrecordedPeople is the same for who asks over the network.
func TestUnrecordedPeople(t *testing.T) {
	s, l, _ := newAudited(t)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	for kind := clientwire.KindUserList; kind <= clientwire.KindTokenRevoke; kind++ {
		_, err := s.n.people(t.Context(), kind, clientwire.PeopleBody{})
		reads := kind == clientwire.KindUserList || kind == clientwire.KindTokenList
		if errors.Is(err, wray.ErrStoreFull) == reads {
			t.Errorf("message %d, where nothing is recorded: %v", kind, err)
		}
	}
}

// TestWhoseRecord: what the node's user does for a tenant is recorded as that.
func TestWhoseRecord(t *testing.T) {
	s, l, dir := newAudited(t)
	for _, tenant := range []string{"", "local", "a"} {
		b, err := link.Marshal(clientwire.JobBody{ID: "job-x", Tenant: tenant})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.handle(t.Context(), nil, link.Message{Kind: clientwire.KindJobStop, Body: b}); err == nil {
			t.Error("a job that is not there is stopped")
		}
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	var got []string
	if _, err := audit.Read(dir, func(r audit.Record, _ []byte) error { got = append(got, r.Object); return nil }); err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0] != "job-x" || got[1] != "job-x" || got[2] != `job-x, of tenant "a"` {
		t.Errorf("recorded are %q", got)
	}
}

// TestAskedTenant: what the node's user asks of a tenant it hears of that one, and
// nothing where there is none.
func TestAskedTenant(t *testing.T) {
	s, _, _ := newAudited(t)
	ask := func(kind link.Kind, body any) error {
		b, err := link.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.handle(t.Context(), nil, link.Message{Kind: kind, Body: b})
		return err
	}
	for tenant, there := range map[string]bool{"": true, "local": true, "a": true, "b": false} {
		for kind, body := range map[link.Kind]any{clientwire.KindStatus: clientwire.StatusBody{Tenant: tenant},
			clientwire.KindMemory: clientwire.MemoryBody{Tenant: tenant}, clientwire.KindExplain: clientwire.ExplainBody{Tenant: tenant}} {
			if err := ask(kind, body); (err == nil) != there || !there && !errors.Is(err, wray.ErrDenied) {
				t.Errorf("message %d about tenant %q: %v", kind, tenant, err)
			}
		}
	}
	for _, body := range []any{nil, struct{}{}} { // of clients that know of no tenants
		if err := ask(clientwire.KindStatus, body); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.handle(t.Context(), nil, link.Message{Kind: clientwire.KindStatus}); err != nil {
		t.Error(err)
	}
	// Of another tenant only those hear who run the cluster.
	other := access.With(t.Context(), access.Principal{Kind: access.User, Tenant: "a", Name: "x", Role: access.Admin})
	if name, err := s.tenantFor(other, "local"); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("an admin of another tenant hears of %q, %v", name, err)
	}
	if name, err := s.tenantFor(other, "a"); name != "a" || err != nil {
		t.Errorf("of his own: %q, %v", name, err)
	}
}
