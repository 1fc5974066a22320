package peoplehttp

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/access"
	"github.com/wray-project/wray/internal/clientwire"
	"github.com/wray-project/wray/internal/httpgate"
	"github.com/wray-project/wray/internal/link"
)

// asked is what reached who does it.
type asked struct {
	kind link.Kind
	body clientwire.PeopleBody
	who  access.Principal
}

// serve has what is asked noted, and answered with out or err, as who.
func serve(t *testing.T, who *access.Principal, got *asked, out any, err *error) (*httptest.Server, string) {
	mux := http.NewServeMux()
	Mount(mux, func(ctx context.Context, kind link.Kind, b clientwire.PeopleBody) (any, error) {
		*got = asked{kind, b, access.From(ctx)}
		return out, *err
	})
	s := httptest.NewTLSServer(httpgate.New(mux, httpgate.Options{Certified: func(*http.Request) access.Principal { return *who }}))
	t.Cleanup(s.Close)
	return s, strings.TrimPrefix(s.URL, "https://")
}

// TestRoutes asks each message as everybody: it arrives as it was sent, where who
// asks may, and else not at all.
func TestRoutes(t *testing.T) {
	var got asked
	var who access.Principal
	var fails error
	s, addr := serve(t, &who, &got, struct{}{}, &fails)
	yes := true
	for _, r := range Routes {
		rule, ok := access.Find(r.Method + " " + r.Path)
		if !ok {
			t.Errorf("%s %s does not stand in access: nobody has said who may ask for it", r.Method, r.Path)
		}
		b := clientwire.PeopleBody{Tenant: "acme", User: "a/../b?c=d@e", Token: "id", Role: "viewer", Service: true, Disabled: &yes, Life: 7, Note: "n"}
		if r.Method == "GET" {
			b = clientwire.PeopleBody{Tenant: "acme", All: true, User: "a b&c"}
		}
		for _, p := range []access.Principal{{}, {Kind: access.Node, Name: "n"}, {Kind: access.User, Tenant: "acme", Role: access.Viewer}, {Kind: access.User, Tenant: "acme", Role: access.Operator},
			{Kind: access.Certed, Tenant: access.Home, Role: access.Developer}, {Kind: access.User, Tenant: "acme", Role: access.Admin}} {
			who, got = p, asked{}
			err := Do(context.Background(), s.Client(), addr, nil, r.Kind, b, &struct{}{})
			if p.Role < rule.Least || p.Kind == access.Node {
				if !errors.Is(err, wray.ErrDenied) || got.kind != 0 {
					t.Errorf("%s %s by %v: %v, and it was asked %+v", r.Method, r.Path, p, err, got)
				}
				continue
			}
			if err != nil || got.kind != r.Kind || got.who != p {
				t.Errorf("%s %s by %v: %v, asked %+v", r.Method, r.Path, p, err, got)
			}
			if d := got.body.Disabled; (d == nil) != (b.Disabled == nil) || d != nil && !*d {
				t.Errorf("%s %s: disabled %v", r.Method, r.Path, d)
			}
			was := b
			got.body.Disabled, was.Disabled = nil, nil
			if got.body != was {
				t.Errorf("%s %s: %+v, sent was %+v", r.Method, r.Path, got.body, was)
			}
		}
	}
	for _, c := range access.Calls() {
		served := false
		for _, r := range Routes {
			served = served || c == r.Method+" "+r.Path
		}
		if (strings.Contains(c, " /v1/users") || strings.Contains(c, " /v1/tokens")) && !served {
			t.Errorf("%s stands in access, and is not served", c)
		}
	}
	// What fails says why, there as here.
	for _, want := range []error{wray.ErrBadArgument, wray.ErrDenied, wray.ErrLimitExceeded} {
		fails = want
		if err := Do(context.Background(), s.Client(), addr, nil, clientwire.KindUserList, clientwire.PeopleBody{}, &struct{}{}); !errors.Is(err, want) {
			t.Errorf("%v arrives as %v", want, err)
		}
	}
	fails = nil
	for _, body := range []string{`{"usr":"x"}`, `[`, `{} {}`, `{}x`, strings.Repeat(" ", maxBody+1) + "{}"} {
		res, err := s.Client().Post(s.URL+"/v1/users", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest {
			t.Errorf("%.20q: %s", body, res.Status)
		}
	}
}

// TestQuery says of which tenant a request is behind its path: that is heeded, or
// the request refused, whatever its method.
func TestQuery(t *testing.T) {
	who := access.Principal{Kind: access.User, Tenant: "beta", Name: "adm", Role: access.Admin}
	var got asked
	var fails error
	s, _ := serve(t, &who, &got, struct{}{}, &fails)
	for _, c := range []struct{ method, path, body, tenant string }{
		{"DELETE", "/v1/users/view?tenant=acme", "", "acme"},
		{"DELETE", "/v1/tokens/id?tenant=acme", "", "acme"},
		{"PATCH", "/v1/users/view?tenant=acme", `{"role":"viewer"}`, "acme"},
		{"POST", "/v1/users?tenant=acme", `{"user":"view","tenant":"acme"}`, "acme"},
		{"DELETE", "/v1/users/view?tenant=acme", `{"tenant":"beta"}`, "refused"},
		{"DELETE", "/v1/users/view?tenant=acme&tenant=beta", "", "refused"},
		{"DELETE", "/v1/users/view?Tenant=acme", "", "refused"},
		{"DELETE", "/v1/users/view?tenant=acme;x", "", "refused"},
		{"GET", "/v1/users?name=view", "", "refused"},
		{"GET", "/v1/users?all=1", "", "refused"},
		{"GET", "/v1/users?user=view&tenant=acme", "", "acme"},
	} {
		got = asked{}
		req, err := http.NewRequest(c.method, s.URL+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := s.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if c.tenant == "refused" {
			if res.StatusCode != http.StatusBadRequest || got.kind != 0 {
				t.Errorf("%s %s: %s, and it was asked %+v", c.method, c.path, res.Status, got)
			}
		} else if res.StatusCode != http.StatusOK || got.body.Tenant != c.tenant {
			t.Errorf("%s %s: %s, asked %+v", c.method, c.path, res.Status, got)
		}
	}
}
