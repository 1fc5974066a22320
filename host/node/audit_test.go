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

// records are those of a log that is closed.
func records(t *testing.T, l *audit.Log, dir string) (list []audit.Record) {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Read(dir, func(r audit.Record, _ []byte) error { list = append(list, r); return nil }); err != nil {
		t.Fatal(err)
	}
	return list
}

// TestCrossedRecord: who asks about another tenant is refused, and that is recorded
// with where it came from.
func TestCrossedRecord(t *testing.T) {
	s, l, dir := newAudited(t)
	adm := access.Principal{Kind: access.User, Tenant: "beta", Name: "adm", Role: access.Admin, Token: "id"}
	ctx := access.At(access.With(t.Context(), adm), "192.0.2.7:99")
	for kind := clientwire.KindUserList; kind <= clientwire.KindTokenRevoke; kind++ {
		if _, err := s.n.people(ctx, kind, clientwire.PeopleBody{Tenant: "acme", User: "view"}); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("message %d about another tenant: %v", kind, err)
		}
	}
	s.n.login(adm, "192.0.2.7:99")
	s.n.done(ctx, adm, access.JobStop, "x", nil)
	list := records(t, l, dir)
	if len(list) != 9 {
		t.Fatalf("recorded are %+v", list)
	}
	for i, r := range list {
		if r.From != "192.0.2.7:99" || r.Tenant != "beta" || r.Token != "id" || i < 7 && (r.Decision != audit.Denied || r.Object != `user "view" of tenant "acme"`) {
			t.Errorf("recorded is %+v", r)
		}
	}
}

// TestTenantRecord: what changes of a tenant is said, and the tenant of those who
// run the cluster is neither made nor disabled.
func TestTenantRecord(t *testing.T) {
	s, l, dir := newAudited(t)
	yes, no, weight := true, false, 2.0
	for _, b := range []clientwire.TenantBody{{What: clientwire.TenantChange, Name: "acme", Disable: &yes}, {What: clientwire.TenantChange, Name: "acme", Disable: &no},
		{What: clientwire.TenantChange, Name: "acme", Weight: &weight, Quota: map[string]int64{"cpu": 5000, "actors": 3}}} {
		body, err := link.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.handle(t.Context(), nil, link.Message{Kind: clientwire.KindTenantSet, Body: body}); err == nil {
			t.Error("a node that is alone changes tenants")
		}
	}
	want := []string{"change tenant acme, disabled true", "change tenant acme, disabled false", "change tenant acme, weight 2, quota actors 3, quota cpu 5000"}
	list := records(t, l, dir)
	if len(list) != len(want) {
		t.Fatalf("recorded are %+v", list)
	}
	for i, r := range list {
		if r.Object != want[i] {
			t.Errorf("recorded is %q, want %q", r.Object, want[i])
		}
	}
	for _, b := range []clientwire.TenantBody{{What: clientwire.TenantCreate}, {What: clientwire.TenantChange, Disable: &yes}} {
		if err := checkHome(&b); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("%+v of tenant local: %v", b, err)
		}
	}
	for _, b := range []clientwire.TenantBody{{What: clientwire.TenantChange, Disable: &no}, {What: clientwire.TenantChange, Weight: &weight}} {
		if err := checkHome(&b); err != nil {
			t.Errorf("%+v of tenant local: %v", b, err)
		}
	}
}
