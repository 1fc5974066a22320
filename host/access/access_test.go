package access

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
)

// world is users in a store in memory, and a checker that follows them, by a clock
// that stands still.
type world struct {
	t     testing.TB
	store *control.Memory
	p     *People
	c     *Checker

	mu     sync.Mutex
	logins []string // guarded by mu
}

// hands are a clock that stands where it is put; the checker looks at it from
// goroutines of its own.
type hands struct{ past atomic.Int64 }

func (h *hands) Now() time.Time       { return time.Unix(1_000_000, h.past.Load()) }
func (h *hands) move(d time.Duration) { h.past.Add(int64(d)) }

func newWorld(t testing.TB, now func() time.Time) *world {
	w := &world{t: t, store: control.NewMemory(control.MemoryOptions{})}
	t.Cleanup(func() { w.store.Close() })
	w.p = &People{Store: w.store, Now: now}
	w.c = NewChecker(w.store, CheckerOptions{Now: now, Login: func(p Principal, _ string) { w.mu.Lock(); defer w.mu.Unlock(); w.logins = append(w.logins, p.Name) }})
	t.Cleanup(func() { w.c.Close() })
	<-w.c.Ready()
	return w
}

func (w *world) user(tenant, name string, r Role) {
	w.t.Helper()
	if err := w.p.AddUser(context.Background(), tenant, name, r, false, "test"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) token(tenant, user string, o TokenOptions) Secret {
	w.t.Helper()
	s, _, err := w.p.NewToken(context.Background(), tenant, user, o)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// await waits until the checker says of a token what it is to say.
func (w *world) await(s Secret, want Principal) {
	w.t.Helper()
	late := time.Now().Add(time.Minute)
	for {
		got, err := w.c.Verify(s.Reveal())
		if got == want && (err == nil) == (want != Principal{}) {
			return
		}
		if time.Now().After(late) {
			w.t.Fatalf("%v is %v, %v; want %v", s, got, err, want)
		}
		time.Sleep(time.Millisecond) // between looks
	}
}

// TestTokens follows tokens through what becomes of them and of their users.
func TestTokens(t *testing.T) {
	ctx := context.Background()
	clock := &hands{}
	w := newWorld(t, clock.Now)
	w.user(Home, "ann", Admin)
	more := w.token(Home, "ann", TokenOptions{Role: Admin}) // than its user may, soon
	if err := w.p.ChangeUser(ctx, Home, "ann", func(u *UserRecord) error { u.Role = "operator"; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.p.NewToken(ctx, Home, "ann", TokenOptions{Role: Admin}); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("a token that may more than its user: %v", err)
	}
	whole, viewer := w.token(Home, "ann", TokenOptions{}), w.token(Home, "ann", TokenOptions{Role: Viewer, Life: time.Hour})
	ann := Principal{Kind: User, Tenant: Home, Name: "ann", Role: Operator, Token: whole.ID()}
	as := func(s Secret, r Role) Principal {
		p := ann
		p.Token, p.Role = s.ID(), r
		return p
	}
	w.await(whole, ann)
	w.await(viewer, as(viewer, Viewer))
	w.await(whole, ann) // which is no news any more
	if w.mu.Lock(); len(w.logins) != 2 || w.logins[0] != "ann" {
		t.Errorf("logins: %q", w.logins)
	}
	w.mu.Unlock()
	w.await(more, as(more, Operator))

	// The user changes, and tokens with it.
	change := func(f func(*UserRecord)) {
		t.Helper()
		if err := w.p.ChangeUser(ctx, Home, "ann", func(u *UserRecord) error { f(u); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	change(func(u *UserRecord) { u.Role = "developer" })
	w.await(whole, as(whole, Developer))
	change(func(u *UserRecord) { u.Disabled = true })
	w.await(whole, Principal{})
	change(func(u *UserRecord) { u.Disabled, u.Service = false, true })
	service := as(whole, Developer)
	service.Kind = Service
	w.await(whole, service)
	if err := w.p.ChangeUser(ctx, Home, "ann", func(u *UserRecord) error { u.Role = "king"; return nil }); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("a role that there is not: %v", err)
	}

	// They end: at their time, when they are revoked, with their user.
	held, release := w.c.Hold(ctx, service)
	defer release()
	clock.move(time.Hour)
	if p, err := w.c.Verify(viewer.Reveal()); err == nil || !errors.Is(err, ErrUnknown) {
		t.Errorf("after an hour: %v, %v", p, err)
	}
	if err := w.c.NoteUse(ctx); err != nil {
		t.Fatal(err)
	}
	list, err := w.p.ListTokens(ctx, Home)
	if err != nil || len(list) != 3 {
		t.Fatalf("%d tokens, %v", len(list), err)
	}
	for _, e := range list {
		if e.Value.Used == 0 || bytes.Contains(e.Record.Value, whole.secret[:]) || bytes.Contains(e.Record.Value, []byte(whole.Reveal())) {
			t.Errorf("a token is kept as %+v", e.Value)
		}
	}
	if _, err := w.p.RevokeToken(ctx, Home, more.ID()); err != nil {
		t.Fatal(err)
	}
	w.await(more, Principal{})
	if _, err := w.p.RevokeToken(ctx, Home, more.ID()); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("revoked again: %v", err)
	}
	if held.Err() != nil {
		t.Error("what the user does ends with another token")
	}
	if err := w.p.RemoveUser(ctx, Home, "ann"); err != nil {
		t.Fatal(err)
	}
	<-held.Done()
	w.await(whole, Principal{})
	if gone, release := w.c.Hold(ctx, service); gone.Err() == nil {
		t.Error("something begins for a token that is gone")
	} else {
		release()
	}
	// Another of the name has nothing of the first, also where whoever removed that
	// died before its tokens were.
	w.user(Home, "ann", Admin)
	left := w.token(Home, "ann", TokenOptions{})
	e, err := Users(w.store).Get(ctx, Home, "ann")
	if err == nil {
		err = Users(w.store).Delete(ctx, e)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.user(Home, "ann", Admin)
	again := w.token(Home, "ann", TokenOptions{})
	w.await(again, as(again, Admin))
	w.await(left, Principal{})
	clock.move(DefaultTokenLife + forgetAfter + time.Second)
	if err := w.p.Prune(ctx); err != nil {
		t.Fatal(err)
	}
	if list, err := w.p.ListTokens(ctx, ""); err != nil || len(list) != 0 {
		t.Errorf("%d tokens are kept for ever, %v", len(list), err)
	}
}

// TestHeldByRole holds that what goes on ends when the role does for which it was
// begun, and when the token expires.
func TestHeldByRole(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	w.user(Home, "bob", Developer)
	s, short := w.token(Home, "bob", TokenOptions{}), w.token(Home, "bob", TokenOptions{Life: time.Second})
	bob := Principal{Kind: User, Tenant: Home, Name: "bob", Role: Developer, Token: s.ID()}
	w.await(s, bob)
	held, release := w.c.Hold(ctx, bob)
	defer release()
	quick := bob
	quick.Token = short.ID()
	expires, release2 := w.c.Hold(ctx, quick)
	defer release2()
	<-expires.Done()
	if held.Err() != nil {
		t.Error("what one token holds ends with another")
	}
	if err := w.p.ChangeUser(ctx, Home, "bob", func(u *UserRecord) error { u.Role = "viewer"; return nil }); err != nil {
		t.Fatal(err)
	}
	<-held.Done()
	other, release3 := w.c.Hold(ctx, Principal{Kind: Certed, Tenant: Home, Name: "x", Role: Developer})
	release3()
	if other.Err() != nil {
		t.Error("who has no token is held")
	}
}

// TestBegin makes the first admin once.
func TestBegin(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	s, first, err := w.p.Begin(ctx)
	if err != nil || !first {
		t.Fatal(first, err)
	}
	w.await(s, Principal{Kind: User, Tenant: Home, Name: FirstAdmin, Role: Admin, Token: s.ID()})
	if _, first, err := w.p.Begin(ctx); first || err != nil {
		t.Errorf("again: %v, %v", first, err)
	}
	w.user(Home, "ann", Admin)
	if err := w.p.RemoveUser(ctx, Home, FirstAdmin); err != nil {
		t.Fatal(err)
	}
	if _, first, err := w.p.Begin(ctx); first || err != nil {
		t.Errorf("where another has taken its place: %v, %v", first, err)
	}
}

// TestBounds asks for what there is not.
func TestBounds(t *testing.T) {
	ctx := context.Background()
	w := newWorld(t, nil)
	for _, name := range []string{"", "a b", "-a", "a/b", "ä", strings.Repeat("a", 127)} {
		if err := w.p.AddUser(ctx, Home, name, Viewer, false, ""); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("user %q: %v", name, err)
		}
	}
	if err := w.p.AddUser(ctx, "nowhere", "a", Viewer, false, ""); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("a tenant that there is not: %v", err)
	}
	if err := w.p.AddUser(ctx, Home, "a", NoRole, false, ""); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("no role: %v", err)
	}
	w.user(Home, "a@example.org", Viewer)
	if err := w.p.AddUser(ctx, Home, "a@example.org", Viewer, false, ""); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("twice: %v", err)
	}
	for _, o := range []TokenOptions{{Life: -1}, {Life: MaxTokenLife + 1}, {Note: strings.Repeat("x", maxNote+1)}} {
		if _, _, err := w.p.NewToken(ctx, Home, "a@example.org", o); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("%+v: %v", o, err)
		}
	}
	if _, _, err := w.p.NewToken(ctx, Home, "b", TokenOptions{}); !errors.Is(err, wray.ErrBadArgument) {
		t.Errorf("of nobody: %v", err)
	}
	for range MaxTokens {
		w.token(Home, "a@example.org", TokenOptions{})
	}
	if _, _, err := w.p.NewToken(ctx, Home, "a@example.org", TokenOptions{}); !errors.Is(err, wray.ErrLimitExceeded) {
		t.Errorf("one more: %v", err)
	}
}

// TestPolicy decides about each kind of caller for each thing that can be called.
func TestPolicy(t *testing.T) {
	for _, call := range append(Calls(), "/wray.node.v1.Peer/None", "GET /v1/none", "unix 99", "") {
		rule, known := Find(call)
		if known && (rule.Action == "" || !rule.Joiner && !rule.Node && rule.Least == NoRole) {
			t.Errorf("%s is for nobody: %+v", call, rule)
		}
		for kind := Nobody; kind <= Local; kind++ {
			for role := NoRole; role <= Admin+1; role++ {
				for _, tenant := range []string{"", Home, "acme"} {
					p := Principal{Kind: kind, Role: role, Tenant: tenant, Name: "x"}
					_, err := Decide(p, call)
					may := false
					switch kind {
					case Nobody:
					case Joiner:
						may = rule.Joiner
					case Node:
						may = rule.Node
					default:
						may = known && rule.Least != NoRole && role >= rule.Least && role <= Admin && tenant != "" && (tenant == Home || !rule.Cluster)
					}
					if (err == nil) != may {
						t.Errorf("%s for %v, %v of %q: %v", call, kind, role, tenant, err)
					}
					want := ErrDenied
					if kind == Nobody {
						want = ErrUnknown
					}
					if err != nil && !errors.Is(err, want) || err != nil && kind != Nobody && !errors.Is(err, wray.ErrDenied) {
						t.Errorf("%s for %v: %v", call, p, err)
					}
				}
			}
		}
	}
	if p := Certified(auth.Identity{Role: auth.RoleHead, Name: "h"}); p.Kind != Nobody {
		t.Errorf("a head's own certificate is for joining alone, and is %v", p)
	}
	for r := Viewer; r <= Admin; r++ {
		if got, err := ParseRole(r.String()); got != r || err != nil {
			t.Errorf("%v: %v, %v", r, got, err)
		}
	}
}

// TestMessages holds that each message that a client may send at the Unix socket
// stands in the table, as its source declares them: what nobody has put there is
// refused.
func TestMessages(t *testing.T) {
	files, err := filepath.Glob("../../internal/clientwire/*.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	for _, name := range files {
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				v := s.(*ast.ValueSpec)
				typ, ok := v.Type.(*ast.SelectorExpr)
				if !ok || typ.Sel.Name != "Kind" || !strings.HasPrefix(v.Comment.Text(), "client:") {
					continue
				}
				call := "unix " + v.Values[0].(*ast.BasicLit).Value
				declared[call] = true
				if _, ok := Find(call); !ok {
					t.Errorf("%s is %s in %s, and does not stand in the table: nobody has said who may send it", v.Names[0].Name, call, name)
				}
			}
		}
	}
	for _, call := range Calls() {
		if strings.HasPrefix(call, "unix ") && !declared[call] {
			t.Errorf("%s stands in the table, and no message is declared so", call)
		}
	}
	if len(declared) < 10 {
		t.Errorf("%d messages found: the test does not see them", len(declared))
	}
}

// TestSecretHides prints a token in all ways that a program may.
func TestSecretHides(t *testing.T) {
	s := newSecret(nil)
	var b bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+" "+verb+" "+verb+"\n", s, &s, struct{ S Secret }{s})
	}
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "token", s, "in", struct{ S Secret }{s})
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "token", s, "in", struct{ S Secret }{s})
	_ = json.NewEncoder(&b).Encode(map[string]any{"s": s, "p": &s})
	secret := base32Lower.EncodeToString(s.secret[:])
	for _, leak := range []string{secret, fmt.Sprintf("%x", s.secret), fmt.Sprintf("%d %d", s.secret[0], s.secret[1])} {
		if strings.Contains(b.String(), leak) {
			t.Errorf("it prints %s in\n%s", leak, b.String())
		}
	}
	if !strings.Contains(s.Reveal(), secret) {
		t.Error("and nobody gets it")
	}
}

// FuzzParseSecret reads any text: what is a token has one text.
func FuzzParseSecret(f *testing.F) {
	pin := [32]byte{1}
	f.Add(newSecret(nil).Reveal())
	f.Add(newSecret(&pin).Reveal())
	f.Add("wrayu1_a_b")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSecret(text)
		if err == nil && s.Reveal() != text {
			t.Errorf("%q is read as %q", text, s.Reveal())
		}
		if err != nil && !errors.Is(err, ErrUnknown) {
			t.Error(err)
		}
	})
}

// BenchmarkCheck is what a call costs that shows a token, with 10,000 of them.
func BenchmarkCheck(b *testing.B) {
	w := newWorld(b, nil)
	ctx := context.Background()
	w.user(Home, "a", Developer)
	s := w.token(Home, "a", TokenOptions{})
	for i := range 9_999 {
		x := newSecret(nil)
		h := x.hash()
		if _, err := Tokens(w.store).Create(ctx, Home, x.id, TokenRecord{User: fmt.Sprint("u", i), Hash: h[:], Expires: 1}); err != nil {
			b.Fatal(err)
		}
	}
	w.await(s, Principal{Kind: User, Tenant: Home, Name: "a", Role: Developer, Token: s.ID()})
	header := "Bearer " + s.Reveal()
	b.ReportAllocs()
	for b.Loop() {
		p, err := w.c.Bearer(header, "")
		if err == nil {
			_, err = Decide(p, "/wray.jobs.v1.Jobs/Submit")
		}
		if err != nil {
			b.Fatal(err)
		}
		_, release := w.c.Hold(With(ctx, p), p)
		release()
	}
}
