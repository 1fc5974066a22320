package jobhttp

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/internal/httpgate"
	"github.com/wray-project/wray/internal/testenv"
)

// gated is what is served behind its gate, with tokens of users.
type gated struct {
	h       http.Handler
	reached int // requests that went through
	tokens  map[string]string
	denied  int
	as      access.Principal // who has a certificate

	store control.Store
	check *access.Checker
}

func newGated(t *testing.T) *gated {
	t.Helper()
	ctx := context.Background()
	store := control.NewMemory(control.MemoryOptions{})
	t.Cleanup(func() { store.Close() })
	check := access.NewChecker(store, access.CheckerOptions{})
	t.Cleanup(func() { check.Close() })
	p := &access.People{Store: store}
	if _, err := control.Tenants(store).Create(ctx, "acme", "acme", control.Tenant{}); err != nil {
		t.Fatal(err)
	}
	g := &gated{tokens: map[string]string{}, store: store, check: check}
	make := func(who, tenant string, role access.Role, now func() time.Time) access.Secret {
		if err := p.AddUser(ctx, tenant, who, role, false, ""); err != nil {
			t.Fatal(err)
		}
		own := *p
		own.Now = now
		s, _, err := own.NewToken(ctx, tenant, who, access.TokenOptions{})
		if err != nil {
			t.Fatal(err)
		}
		g.tokens[who] = s.Reveal()
		return s
	}
	make("expired", access.Home, access.Admin, func() time.Time { return time.Now().Add(-access.MaxTokenLife) })
	revoked := make("revoked", access.Home, access.Admin, nil)
	for r := access.Viewer; r <= access.Admin; r++ {
		make(r.String(), access.Home, r, nil)
		make("acme-"+r.String(), "acme", r, nil)
	}
	if _, err := p.RevokeToken(ctx, access.Home, revoked.ID()); err != nil {
		t.Fatal(err)
	}
	late := time.Now().Add(time.Minute)
	for known := false; !known; { // until all that was done is known
		_, err := check.Verify(revoked.Reveal())
		known = err != nil
		for r := access.Viewer; r <= access.Admin; r++ {
			_, a := check.Verify(g.tokens[r.String()])
			_, b := check.Verify(g.tokens["acme-"+r.String()])
			known = known && a == nil && b == nil
		}
		if time.Now().After(late) {
			t.Fatal("tokens are not known")
		}
	}
	mux := New(&fakeJobs{})
	outer := http.NewServeMux()
	for _, r := range routes { // so that what reaches them is counted
		outer.HandleFunc(r.method+" "+r.path, func(w http.ResponseWriter, req *http.Request) {
			g.reached++
			mux.ServeHTTP(w, req)
		})
	}
	outer.HandleFunc("/", mux.ServeHTTP)
	outer.HandleFunc("GET /v1/unannotated", func(http.ResponseWriter, *http.Request) { t.Error("a route that nobody has annotated is served") })
	g.h = httpgate.New(outer, httpgate.Options{Check: check, Hosts: []string{"node.example.org"}, Certified: func(*http.Request) access.Principal { return g.as },
		Denied: func(access.Principal, string, string) { g.denied++ }})
	return g
}

func (g *gated) do(method, path, token string, change func(*http.Request)) *httptest.ResponseRecorder {
	req := httptest.NewRequest(method, path, nil)
	req.Host = "192.0.2.1:7420"
	if token != "" {
		req.Header.Set("Authorization", token)
	}
	if change != nil {
		change(req)
	}
	w := httptest.NewRecorder()
	g.h.ServeHTTP(w, req)
	return w
}

// TestMatrix asks for every route as everybody who may not: none reaches it, and
// those who are not known are not told apart. And as everybody who may.
func TestMatrix(t *testing.T) {
	g := newGated(t)
	known := map[string]bool{}
	tried, through := 0, 0
	for _, r := range routes {
		pattern := r.method + " " + r.path
		known[pattern] = true
		rule, ok := access.Find(pattern)
		if !ok {
			t.Errorf("%s does not stand in access: nobody has said who may ask for it", pattern)
		}
		path := strings.ReplaceAll(r.path, "{id}", "job-1")
		wrong := []byte(g.tokens["admin"]) // the text of a token, of another secret
		if at := bytes.LastIndexByte(wrong, '_') + 1; wrong[at] == 'a' {
			wrong[at] = 'b'
		} else {
			wrong[at] = 'a'
		}
		if _, err := access.ParseSecret(string(wrong)); err != nil {
			t.Fatal(err)
		}
		var first string
		for who, token := range map[string]string{"nobody": "", "garbage": "Bearer x", "another scheme": "Basic YTpi", "a wrong secret": "Bearer " + string(wrong),
			"no scheme": g.tokens["admin"], "expired": "Bearer " + g.tokens["expired"], "revoked": "Bearer " + g.tokens["revoked"]} {
			before, denied := g.reached, g.denied
			w := g.do(r.method, path, token, nil)
			got := fmt.Sprint(w.Code, w.Header(), w.Body)
			if tried++; w.Code != http.StatusUnauthorized {
				through++
			}
			if w.Code != http.StatusUnauthorized || g.reached != before || g.denied != denied+1 {
				t.Errorf("%s by %s: %s", pattern, who, got)
			}
			if first == "" {
				first = got
			}
			if got != first {
				t.Errorf("%s by %s is told apart: %s and %s", pattern, who, got, first)
			}
		}
		for role := access.Viewer; role <= access.Admin; role++ {
			for _, tenant := range []string{"", "acme-"} {
				before := g.reached
				w := g.do(r.method, path, "Bearer "+g.tokens[tenant+role.String()], nil)
				may := role >= rule.Least && (tenant == "" || !rule.Cluster)
				if !may {
					tried++
				}
				if !may && w.Code != http.StatusForbidden {
					through++
				}
				if may != (g.reached == before+1) || may == (w.Code == http.StatusForbidden) {
					t.Errorf("%s by %s%v: %d", pattern, tenant, role, w.Code)
				}
			}
		}
	}
	for _, c := range access.Calls() {
		if verb, _, _ := strings.Cut(c, " "); verb == strings.ToUpper(verb) && verb != "" && strings.Contains(c, " /v1/jobs") && !known[c] {
			t.Errorf("%s stands in access, and is not served", c)
		}
	}
	if w := g.do("GET", "/v1/unannotated", "Bearer "+g.tokens["admin"], nil); w.Code != http.StatusForbidden {
		t.Errorf("a route that nobody has annotated: %d", w.Code)
	}
	testenv.Bar(t, 9, through, fmt.Sprintf("of %d requests by who may not, to %d routes, are let through", tried, len(routes)), through == 0 && tried > 30)
	// Which routes there are is told to none who is not known.
	if a, b := g.do("GET", "/v1/none", "", nil), g.do("GET", "/v1/jobs", "", nil); a.Code != b.Code || a.Body.String() != b.Body.String() {
		t.Errorf("a route that is not there is told apart: %d and %d", a.Code, b.Code)
	}
}

// TestDisabled asks for every route as people of a tenant that is disabled: they
// reach what begins nothing, as before.
func TestDisabled(t *testing.T) {
	g := newGated(t)
	if _, err := control.Tenants(g.store).Modify(t.Context(), "acme", "acme", func(r *control.Tenant) error { r.Disabled = true; return nil }); err != nil {
		t.Fatal(err)
	}
	for late := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) { // until it is known
		if p, err := g.check.Verify(g.tokens["acme-admin"]); err != nil || time.Now().After(late) {
			t.Fatal(p, err)
		} else if p.Paused {
			break
		}
	}
	for _, r := range routes {
		for who, may := range map[string]bool{"acme-admin": r.method != "POST" || r.path == "/v1/jobs/{id}/stop", "admin": true} {
			before := g.reached
			w := g.do(r.method, strings.ReplaceAll(r.path, "{id}", "job-1"), "Bearer "+g.tokens[who], nil)
			if (g.reached == before+1) != may || !may && w.Code != http.StatusForbidden {
				t.Errorf("%s %s by %s: %d, %s", r.method, r.path, who, w.Code, w.Body)
			}
		}
	}
}

// TestPages has pages of others ask, by every method, from everywhere: nothing
// happens.
func TestPages(t *testing.T) {
	g := newGated(t)
	header := func(kv ...string) func(*http.Request) {
		return func(r *http.Request) {
			for i := 0; i < len(kv); i += 2 {
				if kv[i] == "Host" {
					r.Host = kv[i+1]
				} else {
					r.Header.Set(kv[i], kv[i+1])
				}
			}
		}
	}
	certificate := access.Principal{Kind: access.Certed, Tenant: access.Home, Name: "o", Role: access.Developer}
	for _, r := range routes {
		path := strings.ReplaceAll(r.path, "{id}", "job-1")
		for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "CUSTOM", "GET", "HEAD"} {
			for name, attack := range map[string]struct {
				change func(*http.Request)
				code   int
			}{
				"a page of another":        {header("Origin", "https://evil.example"), http.StatusForbidden},
				"as browsers say now":      {header("Sec-Fetch-Site", "cross-site"), http.StatusForbidden},
				"from beside":              {header("Sec-Fetch-Site", "same-site"), http.StatusForbidden},
				"no page at all":           {header("Origin", "null"), http.StatusForbidden},
				"an agent like none":       {header("Origin", "https://evil.example", "User-Agent", "curl/8"), http.StatusForbidden},
				"a name that leads here":   {header("Host", "evil.example:7420"), http.StatusMisdirectedRequest},
				"both":                     {header("Host", "evil.example", "Origin", "http://evil.example", "Sec-Fetch-Site", "same-origin"), http.StatusMisdirectedRequest},
				"a socket from a page":     {header("Origin", "https://evil.example", "Connection", "Upgrade", "Upgrade", "websocket"), http.StatusForbidden},
				"one said to be from here": {header("Sec-Fetch-Site", "cross-site", "Upgrade", "websocket"), http.StatusForbidden},
			} {
				for _, as := range []access.Principal{certificate, {}} {
					g.as = as
					token := "Bearer " + g.tokens["admin"]
					if as.Kind != access.Nobody {
						token = ""
					} else if (method == "GET" || method == "HEAD") && attack.code == http.StatusForbidden && !strings.Contains(name, "socket") && !strings.Contains(name, "one said") {
						continue // a page has no token but one that was given to it, and reading changes nothing
					}
					before := g.reached
					if w := g.do(method, path, token, attack.change); w.Code != attack.code || g.reached != before {
						t.Errorf("%s %s, %s, by %v: %d", method, path, name, as.Kind, w.Code)
					}
				}
			}
		}
	}
	g.as = access.Principal{}
	for host, want := range map[string]int{"node.example.org": 200, "NODE.example.org.:7420": 200, "localhost:7420": 200, "[2001:db8::1]:7420": 200, "192.0.2.9": 200, "": 421, "node.example.org.evil": 421} {
		if w := g.do("GET", "/v1/jobs", "Bearer "+g.tokens["viewer"], func(r *http.Request) { r.Host = host }); w.Code != want {
			t.Errorf("called %q: %d", host, w.Code)
		}
	}
}
