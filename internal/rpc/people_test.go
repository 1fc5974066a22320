package rpc

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
)

// person is a connection of who shows a token.
type person struct {
	conn *grpc.ClientConn
	role access.Role // NoRole for one that is not known
}

// rawBearer shows any text as a token.
type rawBearer string

func (b rawBearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b == "" {
		return nil, nil
	}
	return map[string]string{"authorization": string(b)}, nil
}

func (rawBearer) RequireTransportSecurity() bool { return true }

var _ credentials.PerRPCCredentials = rawBearer("")

// newPeople is a world whose head knows users, with a connection of each: one of
// each role, and of those that are not known.
func newPeople(t *testing.T, o Options) (*world, map[string]person) {
	t.Helper()
	ctx := context.Background()
	store := control.NewMemory(control.MemoryOptions{})
	t.Cleanup(func() { store.Close() })
	check := access.NewChecker(store, access.CheckerOptions{})
	t.Cleanup(func() { check.Close() })
	o.Access = check
	w := newWorld(t, o)
	pin := w.auth.Trust.Pin()
	p := &access.People{Store: store, Pin: &pin}
	if _, err := control.Tenants(store).Create(ctx, "acme", "acme", control.Tenant{}); err != nil {
		t.Fatal(err)
	}
	people := map[string]person{}
	dial := func(who, bearer string, role access.Role) {
		c, err := grpc.NewClient("passthrough:///"+w.addr(), clientOptions(grpc.WithTransportCredentials(joinCreds{auth.PeopleConfig(pin, protoGRPC, nil)}),
			grpc.WithPerRPCCredentials(rawBearer(bearer)))...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		people[who] = person{c, role}
	}
	token := func(tenant, user string, role access.Role, now func() time.Time) access.Secret {
		if err := p.AddUser(ctx, tenant, user, role, false, "test"); err != nil {
			t.Fatal(err)
		}
		own := *p
		own.Now = now
		s, _, err := own.NewToken(ctx, tenant, user, access.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for r := access.Viewer; r <= access.Admin; r++ {
		dial(r.String(), "Bearer "+token(access.Home, "u-"+r.String(), r, nil).Reveal(), r)
		dial("another tenant's "+r.String(), "Bearer "+token("acme", "u-"+r.String(), r, nil).Reveal(), r)
	}
	dial("nobody", "", access.NoRole)
	dial("garbage", "Bearer garbage", access.NoRole)
	dial("another scheme", "Basic YTpi", access.NoRole)
	dial("a wrong secret", "Bearer "+wrongSecret(token(access.Home, "wrong", access.Admin, nil).Reveal()), access.NoRole)
	dial("an expired token", "Bearer "+token(access.Home, "expired", access.Admin, func() time.Time { return time.Now().Add(-access.MaxTokenLife) }).Reveal(), access.NoRole)
	revoked := token(access.Home, "revoked", access.Admin, nil)
	last := token(access.Home, "last", access.Admin, nil)
	if _, err := p.RevokeToken(ctx, access.Home, revoked.ID()); err != nil {
		t.Fatal(err)
	}
	dial("a revoked token", "Bearer "+revoked.Reveal(), access.NoRole)
	removed := token(access.Home, "removed", access.Admin, nil)
	if err := p.RemoveUser(ctx, access.Home, "removed"); err != nil {
		t.Fatal(err)
	}
	dial("a removed user", "Bearer "+removed.Reveal(), access.NoRole)
	awaitToken(t, check, last)
	for { // until what was revoked is known to be, which comes after what was made
		_, a := check.Verify(revoked.Reveal())
		_, b := check.Verify(removed.Reveal())
		if a != nil && b != nil {
			break
		}
	}
	return w, people
}

// wrongSecret changes one character of a token's secret.
func wrongSecret(text string) string {
	parts := strings.Split(text, "_")
	c := "a"
	if parts[2][0] == 'a' {
		c = "b"
	}
	parts[2] = c + parts[2][1:]
	return strings.Join(parts, "_")
}

// awaitToken waits until a token is known.
func awaitToken(t *testing.T, c *access.Checker, s access.Secret) {
	t.Helper()
	late := time.Now().Add(time.Minute)
	for {
		if _, err := c.Verify(s.Reveal()); err == nil {
			return
		}
		if time.Now().After(late) {
			t.Fatal("a token is not known a minute later")
		}
		time.Sleep(time.Millisecond) // between looks
	}
}

// TestSilentStranger begins calls and sends no message: who is not known is refused
// at once, and holds nothing of the node meanwhile.
func TestSilentStranger(t *testing.T) {
	_, people := newPeople(t, Options{Jobs: &fakeJobs{prints: make(chan string), follows: make(chan struct{}, 1)}})
	for who, p := range people {
		if p.role != access.NoRole {
			continue
		}
		for _, method := range []string{"/wray.jobs.v1.Jobs/List", "/wray.jobs.v1.Jobs/Submit", "/wray.jobs.v1.Jobs/Nothing", "/x.Y/Z"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			call, err := p.conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
			if err == nil {
				err = call.RecvMsg(&emptypb.Empty{})
			}
			if c := status.Code(err); c != codes.Unauthenticated && c != codes.PermissionDenied {
				t.Errorf("%s, who calls %s and says nothing: %v", who, method, err)
			}
			cancel()
		}
	}
}

// TestUser has users with tokens do what they may, to the end of their tokens.
func TestUser(t *testing.T) {
	f := &fakeJobs{prints: make(chan string), follows: make(chan struct{}, 1)}
	store := control.NewMemory(control.MemoryOptions{})
	defer store.Close()
	check := access.NewChecker(store, access.CheckerOptions{})
	defer check.Close()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/jobs", func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprint(rw, access.From(r.Context()))
	})
	denied := make(chan string, 10)
	w := newWorld(t, Options{Jobs: f, HTTP: mux, Access: check, Denied: func(p access.Principal, call, from string) {
		denied <- fmt.Sprint(p, ": ", call)
	}})
	ctx := context.Background()
	pin := w.auth.Trust.Pin()
	p := &access.People{Store: store, Pin: &pin}
	if err := p.AddUser(ctx, access.Home, "eve", access.Viewer, false, ""); err != nil {
		t.Fatal(err)
	}
	s, _, err := p.NewToken(ctx, access.Home, "eve", access.TokenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	awaitToken(t, check, s)
	c, err := NewUser(s, w.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Jobs(ctx); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	if want := (access.Principal{Kind: access.User, Tenant: access.Home, Name: "eve", Role: access.Viewer, Token: s.ID()}); f.from != want {
		t.Errorf("by %+v, want %+v", f.from, want)
	}
	f.mu.Unlock()
	if _, err := c.StopJob(ctx, "job-1"); !errors.Is(err, wray.ErrDenied) {
		t.Errorf("a viewer stops a job: %v", err)
	}
	if got := <-denied; got != "user eve of tenant local: /wray.jobs.v1.Jobs/Stop" {
		t.Errorf("what was denied: %q", got)
	}
	// Over HTTP, and with the authority's certificate as any program has it.
	tr := &http.Transport{TLSClientConfig: auth.PeopleConfig(pin, protoHTTP, nil)}
	defer tr.CloseIdleConnections()
	get := func(bearer string) (int, string) {
		req, err := http.NewRequest("GET", "https://"+w.addr()+"/v1/jobs", nil)
		if err != nil {
			t.Fatal(err)
		}
		if bearer != "" {
			req.Header.Set("Authorization", bearer)
		}
		r, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, _ := io.ReadAll(r.Body)
		return r.StatusCode, string(b)
	}
	if code, body := get("Bearer " + s.Reveal()); code != http.StatusOK || body != "user eve of tenant local" {
		t.Errorf("over HTTP: %d %s", code, body)
	}
	for _, wrong := range []string{"", "Bearer x", "Bearer " + wrongSecret(s.Reveal())} {
		if code, _ := get(wrong); code != http.StatusUnauthorized {
			t.Errorf("HTTP with %.12q: %d", wrong, code)
		}
	}
	// Both connections are those of known users, and make no room for strangers.
	counted := func() (strangers, familiar int) {
		return len(w.srv.people.places()), len(w.srv.peopleKnown.places())
	}
	if n, m := counted(); n != 0 || m != 0 {
		t.Errorf("%d and %d connections of known users may be closed for strangers", n, m)
	}
	// Who has not shown yet who it is has a place among those whose address is
	// familiar, where it is, and else among all others.
	visit := func() {
		t.Helper()
		c, err := tls.Dial("tcp", w.addr(), auth.PeopleConfig(pin, protoGRPC, nil))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_ = c.SetReadDeadline(time.Now().Add(time.Minute))
		if _, err := c.Read(make([]byte, 1)); err != nil { // the server's settings: it is there
			t.Fatal(err)
		}
	}
	visit()
	if n, m := counted(); n != 0 || m != 1 {
		t.Errorf("from a familiar address: %d and %d are counted", n, m)
	}
	w.srv.lately.forget()
	visit()
	if n, m := counted(); n != 1 || m != 1 {
		t.Errorf("from another: %d and %d are counted", n, m)
	}
	// A cluster that the token is not for sees none of it.
	other := newWorld(t, Options{Jobs: f, Access: check})
	oc, err := NewUser(s, other.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer oc.Close()
	if _, err := oc.Jobs(ctx); !errors.Is(err, ErrUnavailable) {
		t.Errorf("another cluster: %v", err)
	}
	// What goes on ends with the token.
	waits := make(chan error, 1)
	go func() {
		_, err := c.JobLogs(ctx, "job-1", 10, true)
		waits <- err
	}()
	<-f.follows
	if _, err := p.RevokeToken(ctx, access.Home, s.ID()); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; err == nil {
		t.Error("who is revoked goes on reading")
	}
	if _, err := c.Jobs(ctx); err == nil {
		t.Error("who is revoked may list jobs")
	}
}

// TestBearerNeedsTLS holds that nobody without a certificate speaks what nodes
// speak, and nobody without TLS anything.
func TestBearerNeedsTLS(t *testing.T) {
	store := control.NewMemory(control.MemoryOptions{})
	defer store.Close()
	check := access.NewChecker(store, access.CheckerOptions{})
	defer check.Close()
	w := newWorld(t, Options{Access: check, Protocols: map[string]func(context.Context, *Conn){"bulk": func(context.Context, *Conn) { t.Error("served") }}})
	c, err := tls.Dial("tcp", w.addr(), auth.PeopleConfig(w.auth.Trust.Pin(), "bulk", nil))
	if err == nil {
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		_, err = bufio.NewReader(c).ReadByte() // TLS 1.3: the refusal comes after the handshake
	}
	if err == nil {
		t.Error("who has no certificate speaks for a node")
	}
	plain, err := net.Dial("tcp", w.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	_ = plain.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprintf(plain, "GET /v1/jobs HTTP/1.1\r\nHost: %s\r\n\r\n", w.addr())
	if b, err := io.ReadAll(plain); err == nil && len(b) > 0 {
		t.Errorf("without TLS it says %q", b)
	}
}
