package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/node"
)

// TestTakenSocket starts a head at the socket of another node: nothing is made, and
// no token is shown.
func TestTakenSocket(t *testing.T) {
	t.Setenv("WRAY_CACHE", t.TempDir())
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	n, err := node.New(node.Config{Name: "test", CacheDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	socket := filepath.Join(t.TempDir(), "node.sock")
	s, err := n.Serve(socket, false)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"start", "--head", "--listen", "127.0.0.1:0", "--socket", socket}, strings.NewReader(""), &out, &errs)
	if code == 0 || !strings.Contains(errs.String(), "a node is running there") || out.Len() > 0 {
		t.Errorf("exit %d: %q %s", code, out.String(), errs.String())
	}
	if made, err := os.ReadDir(state); err != nil || len(made) > 0 {
		t.Errorf("made are %v, %v", made, err)
	}
}
