package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/audit"
)

// TestHostileJSON exports a log with names that would drive a terminal, and holds
// that all JSON that is printed goes the same way.
func TestHostileJSON(t *testing.T) {
	dir := t.TempDir()
	l, err := audit.Open(dir, audit.Options{})
	if err == nil {
		err = l.Write(audit.Event{Who: "user \u009b31m\u202eann\x7f", Action: "job.stop", Object: "\U000e0041", Decision: audit.Allowed})
	}
	if err == nil {
		err = l.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	if code := Main(t.Context(), []string{"audit", "export", dir}, strings.NewReader(""), &out, &errs); code != 0 || !strings.Contains(out.String(), `"who":"user \u009b31m\u202eann\u007f"`) || !strings.Contains(out.String(), `\udb40\udc41`) {
		t.Errorf("exit %d: %q %s", code, out.String(), errs.String())
	}
	sources, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range sources {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if name != "text.go" && name != "json_test.go" && bytes.Contains(b, []byte("json.NewEncoder")) {
			t.Errorf("%s prints JSON by itself: use newJSON", name)
		}
	}
}
