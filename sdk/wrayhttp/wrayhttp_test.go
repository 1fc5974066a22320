package wrayhttp

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
)

// TestTransport holds that http.Client does with Transport what it does with its
// own: as a program sees it that is run in one process.
func TestTransport(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/away":
			http.Redirect(w, r, "/echo", http.StatusTemporaryRedirect)
		case "/hangs":
			<-r.Context().Done()
		default:
			user, _, _ := r.BasicAuth()
			w.Header().Set("X-Saw", r.Method+" "+r.Header.Get("X-One")+" "+user)
			_, _ = io.Copy(w, r.Body)
		}
	}))
	defer srv.Close()
	client := &http.Client{Transport: Transport}
	req, err := http.NewRequest(http.MethodPost, strings.Replace(srv.URL, "://", "://ann:x@", 1)+"/away#part", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-One", "1")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusOK || resp.Status != "200 OK" || string(b) != "hello" || resp.ContentLength != 5 || resp.Header.Get("X-Saw") != "POST 1 ann" {
		t.Errorf("%v, %q, %v", resp, b, err)
	}
	if req, err = http.NewRequest(http.MethodGet, srv.URL, nil); err != nil {
		t.Fatal(err)
	}
	req.Host = "other.example"
	if resp, err := client.Do(req); err == nil {
		resp.Body.Close()
		t.Error("another Host was sent")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := sdk.Fetch(ctx, sdk.HTTPRequest{URL: srv.URL + "/hangs"}); !errors.Is(err, wray.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a server that says nothing: %v", err)
	}
	if _, err := sdk.Fetch(t.Context(), sdk.HTTPRequest{URL: "http://127.0.0.1:1/"}); !errors.Is(err, wray.ErrUserError) {
		t.Errorf("a server that is not there: %v", err)
	}
}

// TestGrantsOption holds what sdk.Grants takes.
func TestGrantsOption(t *testing.T) {
	f := sdk.Func("granted", func(context.Context, int) (int, error) { return 1, nil })
	for _, bad := range []string{"egress=http://a", "dir=a", "gpu=1", ""} {
		if _, err := f.With(sdk.Grants(bad)).Remote(t.Context(), 1).Get(t.Context()); !errors.Is(err, wray.ErrBadArgument) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if n, err := f.With(sdk.Grants("egress=a.b", "dir=/a:ro")).Remote(t.Context(), 1).Get(t.Context()); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
}
