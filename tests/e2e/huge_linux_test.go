package e2e

import (
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var huge = flag.Bool("objects.huge", false, "make values of more than 4 GiB: takes 6 GiB of memory, 5 of disk, and minutes")

// TestHugeObjects has a native client and a guest each make a value of more than
// 4 GiB, which is a guest's whole address space, and the other read it in ranges
// and from end to end, every byte of it. The store has room for one: the first is
// moved to disk for the second, and read from there.
func TestHugeObjects(t *testing.T) {
	if !*huge {
		t.Skip("SKIP: without -objects.huge: it takes 6 GiB of memory")
	}
	client, module := buildBoth(t, "./tests/e2e/testdata/huge")
	dir, err := os.MkdirTemp("", "wray") // a path of t.TempDir may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "node.sock")
	address := "unix://" + socket
	begin(t, address, wray, "start", "--socket", socket, "--object-store-memory", "5GiB", "--spill-dir", t.TempDir(), "--spill-limit", "12GiB")
	cmd := exec.CommandContext(t.Context(), client, address, module)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if want := "two values of 4294971395 bytes are as they were made\n"; err != nil || string(out) != want {
		t.Fatalf("%v: it printed %q, want %q", err, out, want)
	}
	awaitEmpty(t, address)
}
