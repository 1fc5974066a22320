package e2e

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// TestFetch runs the example against a server of this machine: it is asked where
// job, policy and task let it be, and else not once.
func TestFetch(t *testing.T) {
	var asked atomic.Int64
	inner := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = io.WriteString(w, strings.Repeat("x", 300_000))
	}))
	defer inner.Close()
	redirects := httptest.NewServer(http.RedirectHandler("http://169.254.169.254/latest/", http.StatusFound))
	defer redirects.Close()
	at, other := strings.TrimPrefix(inner.URL, "http://"), strings.TrimPrefix(redirects.URL, "http://")

	r := run(t, "", "run", "./examples/fetch", "--egress", at, "--egress", other, "--egress", "169.254.169.254", "--egress-private", "127.0.0.0/8", "--", inner.URL+"/a", redirects.URL)
	if r.code != 0 || !strings.Contains(r.stdout, inner.URL+"/a: 200 OK, 300000 bytes\n") || !strings.Contains(r.stdout, redirects.URL+": denied: ") ||
		!strings.Contains(r.stdout, "the task was not granted egress to 169.254.169.254:80") {
		t.Errorf("%+v", r)
	}
	if asked.Swap(0) != 1 {
		t.Error("the server was not asked once")
	}
	for name, c := range map[string]struct {
		flags []string
		want  string
	}{
		"nothing granted": {nil, "the job was not granted egress to " + at},
		"another granted": {[]string{"--egress", other, "--egress-private", "127.0.0.0/8"}, "the job was not granted egress to " + at},
		"no network open": {[]string{"--egress", at}, "the address 127.0.0.1 is loopback"},
	} {
		args := append(append([]string{"run", "./examples/fetch"}, c.flags...), "--", inner.URL)
		if r := run(t, "", args...); r.code != 0 || !strings.Contains(r.stdout, fmt.Sprintf("%s: denied: ", inner.URL)) || !strings.Contains(r.stdout, c.want) {
			t.Errorf("%s: %+v", name, r)
		}
	}
	if asked.Load() != 0 {
		t.Errorf("the server was asked %d times by those who may not", asked.Load())
	}
	for _, bad := range []string{"http://a.b", "a.b:0", "0x7f.1"} {
		if r := run(t, "", "run", "./examples/fetch", "--egress", bad); r.code != 2 || !strings.Contains(r.stderr, "egress") {
			t.Errorf("--egress %s: %+v", bad, r)
		}
	}
}
