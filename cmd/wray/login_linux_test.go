package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestLoginShowsNothing types a token at a terminal of its own.
func TestLoginShowsNothing(t *testing.T) {
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer master.Close()
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	var got string
	done := make(chan error, 1)
	go func() {
		var err error
		got, err = readToken(tty, tty)
		done <- err
	}()
	screen := make([]byte, 0, 1<<10)
	see := func(until string) {
		t.Helper()
		for !strings.Contains(string(screen), until) {
			n, err := master.Read(screen[len(screen):cap(screen)])
			if err != nil {
				t.Fatal(err)
			}
			screen = screen[:len(screen)+n]
		}
	}
	see(": ")
	for late := time.Now().Add(5 * time.Second); time.Now().Before(late); { // that nothing is echoed comes after the prompt
		a, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
		if err != nil {
			t.Fatal(err)
		}
		if a.Lflag&unix.ECHO == 0 {
			break
		}
	}
	if _, err := io.WriteString(master, "wrayu1_secret\n"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || got != "wrayu1_secret" {
		t.Errorf("read %q, %v", got, err)
	}
	if _, err := io.WriteString(tty, "end"); err != nil {
		t.Fatal(err)
	}
	if see("end"); strings.Contains(string(screen), "secret") {
		t.Errorf("the terminal shows %q", screen)
	}
}
