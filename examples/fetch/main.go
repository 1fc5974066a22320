// Command fetch asks servers over HTTP, a task for each URL, and prints what they
// answer. A task is granted what its job is, and nothing is granted by itself:
//
//	wray run ./examples/fetch --egress example.com -- https://example.com/
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/sdk"
	"github.com/wray-project/wray/sdk/wrayhttp"
)

// Page is what came of a request.
type Page struct {
	Status string
	Bytes  int64
	Denied string // why it was not made; empty: it was
}

var get = sdk.Func("get", func(ctx context.Context, url string) (Page, error) {
	client := &http.Client{Transport: wrayhttp.Transport}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return Page{}, err
	}
	resp, err := client.Do(req)
	if errors.Is(err, wray.ErrDenied) {
		return Page{Denied: err.Error()}, nil
	}
	if err != nil {
		return Page{}, err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	return Page{Status: resp.Status, Bytes: n}, err
})

func main() {
	sdk.Main(func(ctx context.Context) error {
		urls := os.Args[1:]
		var pages []sdk.Ref[Page]
		for _, u := range urls {
			// Each task gets the one server that it asks, and no other.
			at, err := url.Parse(u)
			if err != nil {
				return err
			}
			pages = append(pages, get.With(sdk.Grants("egress="+at.Host)).Remote(ctx, u))
		}
		for i, ref := range pages {
			p, err := ref.Get(ctx)
			switch {
			case err != nil:
				fmt.Printf("%s: %v\n", urls[i], err)
			case p.Denied != "":
				fmt.Printf("%s: denied: %s\n", urls[i], p.Denied)
			default:
				fmt.Printf("%s: %s, %d bytes\n", urls[i], p.Status, p.Bytes)
			}
		}
		return nil
	})
}
