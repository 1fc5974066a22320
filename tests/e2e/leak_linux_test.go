package e2e

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// listing is what TestMemoryFindsLeaks reads of wray memory --json.
type listing struct {
	Objects []struct {
		Bytes   int64 `json:"bytes"`
		Holders []struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
		} `json:"holders"`
	} `json:"objects"`
	Resources []struct {
		Name        string
		Total, Free float64
	} `json:"resources"`
	Actors []struct {
		Name, Class, State, Why, Call string
		Calls, Bytes                  int64
	} `json:"actors"`
	States map[string]int64 `json:"actor_states"`
}

// TestMemoryFindsLeaks has an actor, and a task in C where there is a compiler
// for that, keep what nobody knows of any more, and finds them named by wray
// memory, with the actors in each state and what resources are free.
func TestMemoryFindsLeaks(t *testing.T) {
	dir, err := os.MkdirTemp("", "wray")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "node.sock")
	address := "unix://" + socket
	node := begin(t, address, wray, "start", "--socket", socket, "--resource", "licence=2")
	args := []string{"run", "--address", address, filepath.Join(root, "tests/e2e/testdata/leak")}
	if _, err := exec.LookPath("clang"); err == nil {
		args = append(args, "--with", guestInC(t, "forgetful.wasm", "tests/e2e/testdata/leak/c/leak.c"), "--", "c")
	} else {
		t.Log("SKIP: no clang: the task in C leaks nothing")
	}
	in, input, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer input.Close()
	beginWith(t, in, "holding", wray, args...)

	// The driver's own references go when it has collected its garbage, and the
	// actor sleeps a moment after its call.
	var m listing
	var text string
	for deadline := time.Now().Add(patience / 2); ; {
		r := run(t, "", "memory", "--json", "--address", address)
		m, text = listing{}, r.stdout
		if err := json.Unmarshal([]byte(text), &m); err != nil {
			t.Fatalf("%v: %s%s", err, text, r.stderr)
		}
		missing := m.missing(len(args) > 4)
		if missing == "" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s in %s", missing, text)
		}
	}
	r := run(t, "", "memory", "--address", address)
	for _, want := range []string{"licence 0.50 of 2.00", "actors: 1 sleeping, 2 waiting", "actor sleeper for ", "hoarder.wait, for what its call waits"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("no %q in\n%s", want, r.stdout)
		}
	}
	input.Close()
	if err := node.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = node.cmd.Wait()
}

// missing says what the listing does not show.
func (m *listing) missing(c bool) string {
	holders := map[string]string{}
	for _, o := range m.Objects {
		var by []string
		for _, h := range o.Holders {
			if h.Kind != "value" { // that of the argument, in which it came
				by = append(by, h.Kind+" "+h.Name)
			}
		}
		holders[fmt.Sprint(o.Bytes)] = strings.Join(by, ", ")
	}
	if got := holders[fmt.Sprint(1<<20)]; got != "actor sleeper" {
		return fmt.Sprintf("what the actor keeps is held by %q", got)
	}
	if got := holders[fmt.Sprint(2<<20)]; c && got != "sandbox forget" {
		return fmt.Sprintf("what the task in C keeps is held by %q", got)
	}
	licence := ""
	for _, r := range m.Resources {
		if r.Name == "licence" {
			licence = fmt.Sprintf("%g of %g", r.Free, r.Total)
		}
	}
	if licence != "0.5 of 2" {
		return "licences: " + licence
	}
	if m.States["sleeping"] != 1 || m.States["waiting"] != 2 || len(m.Actors) != 3 {
		return fmt.Sprintf("actors: %v", m.States)
	}
	for _, a := range m.Actors {
		if a.Class != "hoarder" {
			return "class " + a.Class
		}
		ok := false
		switch {
		case a.Name == "sleeper":
			ok = a.State == "sleeping" && a.Calls == 1 && a.Bytes > 100 && a.Bytes < 1<<20
		case a.Call == "hoarder.wait":
			ok = strings.HasPrefix(a.Why, "for what its call waits") && a.Calls == 1
		default:
			ok = strings.HasPrefix(a.Why, "for resources") && a.Calls == 0
		}
		if !ok {
			return fmt.Sprintf("actor %+v", a)
		}
	}
	return ""
}
