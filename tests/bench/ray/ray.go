package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// rayCases are those that "ray microbenchmark" prints and wray has, too, in
// Ray's order.
var rayCases = []string{
	"single client get calls (Plasma Store)",
	"single client put calls (Plasma Store)",
	"multi client put calls (Plasma Store)",
	"single client put gigabytes",
	"single client tasks and get batch",
	"multi client put gigabytes",
	"single client get object containing 10k refs",
	"single client wait 1k refs",
	"single client tasks sync",
	"single client tasks async",
	"multi client tasks async",
	"1:1 actor calls sync",
	"1:1 actor calls async",
	"1:1 actor calls concurrent",
	"1:n actor calls async",
	"n:n actor calls async",
	"n:n actor calls with arg async",
	"1:1 async-actor calls sync",
	"1:1 async-actor calls async",
	"1:1 async-actor calls with args async",
	"1:n async-actor calls async",
	"n:n async-actor calls async",
	"placement group create/removal",
}

// casesOf returns the cases of a piece.
func casesOf(piece string) []string {
	var list []string
	for _, c := range rayCases {
		if strings.Contains(c, piece) {
			list = append(list, c)
		}
	}
	return list
}

// rayEnv is a Ray in an environment of its own.
type rayEnv struct{ dir string }

// maxDir bounds the length of the directory: Ray makes sockets 70 bytes below
// it, whose paths may have 107.
const maxDir = 36

// install has Ray in dir, which it may be in already.
func install(ctx context.Context, python, dir string) (*rayEnv, error) {
	if len(dir) > maxDir {
		return nil, fmt.Errorf("the directory %s has a name of %d bytes: Ray's sockets need one of at most %d, so set TMPDIR or -dir", dir, len(dir), maxDir)
	}
	r := &rayEnv{dir}
	for _, d := range []string{"home", "t"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			return nil, err
		}
	}
	list := filepath.Join(dir, "requirements.txt")
	if have, err := os.ReadFile(list); err == nil && string(have) == string(requirements) {
		return r, nil // written last
	}
	path, err := exec.LookPath(python)
	if err != nil {
		return nil, fmt.Errorf("there is no %s, which Ray needs: install CPython 3.11, or name it with -python", python)
	}
	out, err := exec.CommandContext(ctx, path, "-c", "import sys; print(sys.implementation.name, *sys.version_info[:2])").CombinedOutput()
	if got := strings.TrimSpace(string(out)); err != nil || got != "cpython 3 11" {
		return nil, fmt.Errorf("%s is %q: the hashes are of packages for CPython 3.11; name it with -python", path, got)
	}
	if err := command(ctx, path, "-m", "venv", filepath.Join(dir, "env")).Run(); err != nil {
		return nil, fmt.Errorf("%s makes no virtual environment: %w; install its package venv (python3.11-venv on Debian)", path, err)
	}
	pins := filepath.Join(dir, "pins.txt")
	if err := os.WriteFile(pins, requirements, 0o600); err != nil {
		return nil, err
	}
	if err := command(ctx, filepath.Join(dir, "env/bin/pip"), "install", "--quiet", "--disable-pip-version-check",
		"--require-hashes", "--only-binary", ":all:", "-r", pins).Run(); err != nil {
		return nil, fmt.Errorf("pip cannot install what requirements.txt pins: %w; is the Python registry in reach?", err)
	}
	return r, os.Rename(pins, list)
}

// piece runs the cases of a piece with "ray microbenchmark", which is ended
// when it has printed them all.
func (r *rayEnv) piece(ctx context.Context, piece string) (list []line, err error) {
	want := map[string]bool{}
	for _, c := range casesOf(piece) {
		want[c] = true
	}
	if len(want) == 0 {
		return nil, fmt.Errorf("no case has %q in its name; pieces are %q", piece, pieces)
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Minute)
	defer cancel()
	cmd := command(ctx, filepath.Join(r.dir, "env/bin/ray"), "microbenchmark")
	cmd.Dir = r.dir
	mark := "WRAY_BENCH_RAY=" + r.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + filepath.Join(r.dir, "home"), "RAY_TMPDIR=" + filepath.Join(r.dir, "t"),
		"RAY_USAGE_STATS_ENABLED=0", "PYTHONUNBUFFERED=1", "LANG=C.UTF-8",
		"TESTS_TO_RUN=" + piece, "TESTS_TO_SKIP=client: ", mark}
	if cmd.Stderr, err = os.Create(filepath.Join(r.dir, "ray.log")); err != nil {
		return nil, err
	}
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	list, err = scan(out, want, os.Stderr)
	_ = cmd.Process.Signal(os.Interrupt) // it goes on with what nobody asked for
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait() // it was interrupted: its code says nothing
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
	}
	killMarked(mark)
	<-ended
	if err == nil && len(want) > 0 {
		err = fmt.Errorf("it ended before it had printed all: see %s", filepath.Join(r.dir, "ray.log"))
	}
	return list, errors.Join(ctx.Err(), err)
}

// result is what Ray's microbenchmark prints of a case.
var result = regexp.MustCompile(`^(.+) per second ([0-9.e+]+) \+- ([0-9.e+]+|nan)$`)

// parse reads a line of "ray microbenchmark"; false: it is no result.
func parse(s string) (line, bool) {
	m := result.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		return line{}, false
	}
	l := line{By: byRay, Case: m[1]}
	var err error
	if l.Rate, err = strconv.ParseFloat(m[2], 64); err != nil {
		return line{}, false
	}
	l.Spread, _ = strconv.ParseFloat(m[3], 64)
	if inGiB(l.Case) {
		l.Rate, l.Spread = l.Rate*gibOfRay, l.Spread*gibOfRay
	}
	return l, true
}

// scan reads results until it has seen all that are wanted, which it takes out
// of want, or the output ends. What it reads it shows.
func scan(r io.Reader, want map[string]bool, show io.Writer) ([]line, error) {
	var list []line
	s := bufio.NewScanner(r)
	for len(want) > 0 && s.Scan() {
		l, ok := parse(s.Text())
		if !ok {
			continue
		}
		fmt.Fprintln(show, s.Text())
		if want[l.Case] {
			delete(want, l.Case)
			list = append(list, l)
		}
	}
	return list, s.Err()
}
