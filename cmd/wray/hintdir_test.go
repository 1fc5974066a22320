package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/wray-project/wray/host/node"
)

func TestUngranted(t *testing.T) {
	dirs := []node.Dir{{Guest: "/in"}, {Guest: "/out/"}}
	for _, c := range []struct{ said, want string }{
		{"op: open /etc/passwd: Bad file number\n", "/etc/passwd"},
		{"freq: /etc/passwd: failed to find a pre-opened file descriptor through which \"/etc/passwd\" could be opened\n", "/etc/passwd"},
		{"FileNotFoundError: [Errno 44] No such file or directory: '/data/x.txt'\n", "/data/x.txt"},
		{"crc: /a/b: Capabilities insufficient\nsecond line\n", "/a/b"},
		{"open /first: No such file or directory\nopen /last: No such file or directory\n", "/last"},
		{"open /in/x: No such file or directory\n", ""}, // granted, and not there
		{"open /out/x: No such file or directory\n", ""},
		{"open /inner/x: No such file or directory\n", "/inner/x"},
		{"cp /in/x /there: no such file or directory\n", "/there"},
		{"open rel: No such file or directory\n", ""},
		{"panic: at /usr/src/main.go\n", ""},
		{"open /a\x1b[2Jb: No such file or directory\n", "/a\uFFFD[2Jb"}, // a guest may not drive the terminal
		{"open /" + strings.Repeat("x", 600) + ": No such file or directory\n", ""},
		{"", ""},
	} {
		if got := ungranted([]byte(c.said), dirs); got != c.want {
			t.Errorf("%q: got %q, want %q", c.said, got, c.want)
		}
	}
}

func TestKeep(t *testing.T) {
	var all, tail []byte
	for i := range 300 {
		b := bytes.Repeat([]byte{byte('a' + i%26)}, i*i%97)
		if i == 200 {
			b = bytes.Repeat([]byte("long"), keptErr)
		}
		all, tail = append(all, b...), keep(tail, b)
		if want := all[max(0, len(all)-keptErr):]; !bytes.Equal(tail, want) {
			t.Fatalf("after %d: %d bytes, want %d", i, len(tail), len(want))
		}
	}
}
