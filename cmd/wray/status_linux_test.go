package main

import (
	"bytes"
	"errors"
	"os"
	"os/signal"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestKeepCredential keeps a credential where a part of it fits, and where all of
// it does: there is never a part of one.
func TestKeepCredential(t *testing.T) {
	credential := bytes.Repeat([]byte("secret"), 100)
	out := filepath.Join(t.TempDir(), "alice.pem")
	made := func() ([]byte, error) { return credential, nil }
	// As a full disk: files of this process may not be longer.
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	signal.Ignore(unix.SIGXFSZ)
	defer signal.Reset(unix.SIGXFSZ)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &unix.Rlimit{Cur: 100, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	err := keepCredential(out, made)
	if err := unix.Setrlimit(unix.RLIMIT_FSIZE, &was); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(err, unix.EFBIG) {
		t.Errorf("without room: %v", err)
	}
	if left, _ := os.ReadDir(filepath.Dir(out)); len(left) != 0 {
		t.Errorf("without room there is %v", left)
	}
	refused := errors.New("refused")
	if err := keepCredential(out, func() ([]byte, error) { return nil, refused }); err != refused {
		t.Errorf("a head that refuses: %v", err)
	}
	if err := keepCredential(out, made); err != nil {
		t.Fatalf("with room, and after it failed: %v", err)
	}
	st, err := os.Stat(out)
	if err != nil || st.Mode().Perm() != 0o600 || st.Size() != int64(len(credential)) {
		t.Errorf("it has %v, %v", st, err)
	}
	asked := false
	if err := keepCredential(out, func() ([]byte, error) { asked = true; return nil, nil }); !errors.Is(err, os.ErrExist) || asked {
		t.Errorf("a file that is there: %v, a credential was made: %v", err, asked)
	}
}
