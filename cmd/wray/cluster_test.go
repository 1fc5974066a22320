package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/auth"
)

// TestMisused has flags that are wrong end as mistakes in them, with what is right.
func TestMisused(t *testing.T) {
	for args, want := range map[string]string{"module sign x.wasm --key k --detached -o y": "both said", "tenant set acme --weight 0": "0.01 to 100", "tenant set acme --weight 101": "0.01 to 100"} {
		var errs bytes.Buffer
		if code := Main(t.Context(), strings.Fields(args), strings.NewReader(""), &errs, &errs); code != exitUsage || !strings.Contains(errs.String(), want) {
			t.Errorf("%s: exit %d: %s", args, code, errs.String())
		}
	}
}

// TestOtherNames starts a node whose cluster is kept under another name than the
// host's: it says how it comes back, unless it is to be alone.
func TestOtherNames(t *testing.T) {
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	says := func(o *clusterOptions) string {
		var b bytes.Buffer
		o.others(&b)
		return b.String()
	}
	if got := says(&clusterOptions{}); got != "" {
		t.Errorf("where there is no other: %q", got)
	}
	if err := os.MkdirAll(filepath.Join(state, "wray", "cluster", "one-of-mine"), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(state, "wray", "cluster", "one-of-mine", auth.NodeFile), "x")
	if got := says(&clusterOptions{}); !strings.Contains(got, "\n    wray start --name one-of-mine\n") {
		t.Errorf("where there is another: %q", got)
	}
	for _, o := range []clusterOptions{{alone: true}, {name: "one-of-mine"}, {head: true}} {
		if got := says(&o); got != "" {
			t.Errorf("%+v: %q", o, got)
		}
	}
}
