package e2e

import (
	"strings"
	"testing"
)

// TestRefused holds that who passes a limit is told which, how large it is and
// which flag raises it, whatever the call; and that references which nobody
// holds any more count for nothing.
func TestRefused(t *testing.T) {
	handles := "(limit handles = 100, raise it with --max-handles)"
	for _, c := range []struct {
		mode   string
		flags  []string
		told   string // on stdout, where the driver itself gets a *wray.Error with a Limit
		stderr []string
	}{
		{"put", []string{"--max-handles", "100"}, "LimitExceeded, handles = 100\n", []string{"LimitExceeded: put: ", handles}},
		{"submit", []string{"--max-handles", "100"}, "LimitExceeded, handles = 100\n", []string{"task double: LimitExceeded: submit: ", handles}},
		{"task", []string{"--max-handles", "100"}, "", []string{"task fill (attempt 1 on ", "LimitExceeded: put: ", handles}},
		{"input", []string{"--max-handles", "3"}, "", []string{"task lengths (attempt 1 on ", "the sandbox holds 3 handles (limit handles = 3, raise it with --max-handles)"}},
		{"store", []string{"--object-store-memory", "16MiB"}, "StoreFull, object store memory = 16777216\n",
			[]string{"an object of 33554432 bytes is larger than the object store", "--object-store-memory"}},
		{"crowded", []string{"--object-store-memory", "16MiB", "--spill-dir", "none"}, "StoreFull, object store memory = 16777216\n",
			[]string{"--object-store-memory"}},
		{"return", []string{"--object-store-memory", "1MiB"}, "StoreFull, object store memory = 1048576\n",
			[]string{"task fat (attempt 1 on ", "(limit object store memory = 1 MiB, raise it with --object-store-memory)"}},
		{"memory", nil, "LimitExceeded, memory of a WebAssembly module = 4294967296\n",
			[]string{"submit: the task asks for 1125899906842624 bytes of memory, more than a sandbox can have"}},
		{"windows", []string{"--max-windows", "40"}, "LimitExceeded, mapped objects = 40\n",
			[]string{"LimitExceeded: get: the sandbox has 40 mapped objects (limit mapped objects = 40, raise it with --max-windows)"}},
		{"buffers", []string{"--max-windows", "40"}, "LimitExceeded, mapped objects = 40\n",
			[]string{"LimitExceeded: make: the sandbox has 40 mapped objects (limit mapped objects = 40, raise it with --max-windows)"}},
		{"read", []string{"--max-windows", "40"}, "", nil},
		{"drop", []string{"--max-handles", "100"}, "", nil},
	} {
		r := run(t, "", append(append([]string{"run"}, c.flags...), "./tests/e2e/testdata/refused", c.mode)...)
		want := 0
		if c.stderr != nil {
			want = 1
			c.stderr = append(c.stderr, "hint: ")
		}
		if r.code != want || r.stdout != c.told {
			t.Errorf("%s: exit %d, said %q, want %d, %q\n%s", c.mode, r.code, r.stdout, want, c.told, r.stderr)
		}
		for _, s := range c.stderr {
			if !strings.Contains(r.stderr, s) {
				t.Errorf("%s: no %q in\n%s", c.mode, s, r.stderr)
			}
		}
	}
}
