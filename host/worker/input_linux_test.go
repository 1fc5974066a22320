package worker

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/wray-project/wray/host/wasi"
)

// Not only pipes and terminals are inputs: of files and devices that can always be
// read the kernel tells no events.
func TestInputOfFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "in")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{os.DevNull: "", file: "text"} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		in, err := newInput(f)
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		ready := make(chan struct{}, 8)
		in.onReady(func() { ready <- struct{}{} })
		var got []byte
		for b := make([]byte, 3); ; {
			n, errno := in.Read(b)
			if errno == wasi.EAGAIN {
				<-ready
				continue
			}
			if errno != 0 {
				t.Fatalf("%s: errno %d", path, errno)
			}
			if n == 0 {
				break
			}
			got = append(got, b[:n]...)
		}
		if string(got) != want {
			t.Errorf("%s: read %q, want %q", path, got, want)
		}
		in.Close()
		f.Close()
	}
}
