package e2e

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wray-project/wray/host/auth"
)

// jobOf is what the tests read of a job.
type jobOf struct {
	ID    string `json:"id"`
	Node  string `json:"node"`
	State string `json:"state"`
	Code  int    `json:"exit_code"`
	Error string `json:"error"`
	By    string `json:"by"`
}

// jobAt is wray job status.
func jobAt(t *testing.T, id string, where ...string) (j jobOf) {
	t.Helper()
	r := run(t, "", append([]string{"job", "status", "--json", id}, where...)...)
	if err := json.Unmarshal([]byte(r.stdout), &j); r.code != 0 || err != nil {
		t.Fatalf("wray job status: %d, %v, %s%s", r.code, err, r.stdout, r.stderr)
	}
	return j
}

// jobsAt is wray job list.
func jobsAt(t *testing.T, where ...string) (list []jobOf) {
	t.Helper()
	r := run(t, "", append([]string{"job", "list", "--json"}, where...)...)
	if r.code != 0 {
		t.Fatalf("wray job list: %d, %s", r.code, r.stderr)
	}
	for line := range strings.Lines(r.stdout) {
		var j jobOf
		if err := json.Unmarshal([]byte(line), &j); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		list = append(list, j)
	}
	return list
}

// awaitJobs waits until a node knows of so many jobs.
func awaitJobs(t *testing.T, n int, where ...string) {
	t.Helper()
	for deadline := time.Now().Add(patience); len(jobsAt(t, where...)) != n; {
		if time.Now().After(deadline) {
			t.Fatalf("%v knows of %+v, want %d", where, jobsAt(t, where...), n)
		}
	}
}

// follow begins a command that shows a job's output and waits for a line of it.
// The reader has what comes after it.
func follow(t *testing.T, line string, args ...string) (*exec.Cmd, *bufio.Reader, *strings.Builder) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), wray, args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs := &strings.Builder{}
	cmd.Stderr = errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(out)
	if got, err := r.ReadString('\n'); got != line {
		_ = cmd.Wait()
		t.Fatalf("wray %v: %q, %v, %s", args, got, err, errs)
	}
	return cmd, r, errs
}

// endless is a program that prints a line and then does nothing until somebody
// ends it.
func endless(t *testing.T) string {
	return program(t, `package main

import (
	"fmt"
	"time"
)

func main() {
	fmt.Println("ready")
	for {
		time.Sleep(time.Hour)
	}
}
`)
}

// TestJobs submits jobs to a node of this machine that end, are left alone, are
// stopped, and die with the node.
func TestJobs(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "node.sock")
	where := "--address=unix://" + socket
	start := []string{"start", "--socket", socket, "--jobs-dir", filepath.Join(dir, "jobs"), "--job-log-limit", "1MiB"}
	node := begin(t, "listens at unix://", wray, start...)

	ends := program(t, `package main

import (
	"fmt"
	"os"
	"strings"
)

func main() {
	fmt.Println("out", os.Args[1:])
	fmt.Fprintln(os.Stderr, "err")
	if os.Args[1] == "much" {
		for i := range 40000 {
			fmt.Println(i, strings.Repeat("x", 100))
		}
	}
	os.Exit(len(os.Args) - 2)
}
`)
	if r := run(t, "", "job", "submit", where, ends, "--", "a"); r.code != 0 || r.stdout != "out [a]\n" || !strings.Contains(r.stderr, "err\n") || !strings.Contains(r.stderr, "wray: job job-") {
		t.Errorf("a job that ends with 0: %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	if r := run(t, "", "job", "submit", where, ends, "--", "a", "b", "c"); r.code != 2 || r.stdout != "out [a b c]\n" {
		t.Errorf("a job that ends with 2: %d, %q, %q", r.code, r.stdout, r.stderr)
	}
	list := jobsAt(t, where)
	if len(list) != 2 || list[0].State != "failed" || list[0].Code != 2 || list[1].State != "succeeded" {
		t.Fatalf("jobs: %+v", list)
	}
	// JSON has the job, what it printed, and the job as it ended.
	r := run(t, "", "job", "submit", where, "--json", ends, "--", "a")
	var states, printed []string
	for line := range strings.Lines(r.stdout) {
		var rec struct {
			Job    *jobOf
			Output *struct{ Stream, Text string }
		}
		if err := json.Unmarshal([]byte(line), &rec); err != nil {
			t.Fatalf("%v in %q", err, line)
		}
		if rec.Job != nil {
			states = append(states, rec.Job.State)
		} else {
			printed = append(printed, rec.Output.Stream+" "+rec.Output.Text)
		}
	}
	if len(states) != 2 || states[1] != "succeeded" || fmt.Sprint(printed) != "[stdout out [a]\n stderr err\n]" {
		t.Errorf("in JSON: %v, %q", states, printed)
	}

	// More than is kept.
	if r := run(t, "", "job", "submit", where, "--detach", ends, "--", "much"); r.code != 0 {
		t.Fatalf("submit --detach: %d, %s", r.code, r.stderr)
	} else {
		id := strings.TrimSpace(r.stdout)
		run(t, "", "job", "logs", where, "--follow", id)
		r := run(t, "", "job", "logs", where, id)
		if r.code != 0 || !strings.Contains(r.stderr, "of older output are dropped") || !strings.Contains(r.stdout, "\n39999 x") ||
			len(r.stdout) < 400<<10 || len(r.stdout) > 1<<20 {
			t.Errorf("a log that is too long: %d, %d bytes, %s", r.code, len(r.stdout), r.stderr)
		}
	}

	// One is left alone by who submitted it, and followed by another.
	module := endless(t)
	cmd, _, errs := follow(t, "ready\n", "job", "submit", where, module)
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	id := jobsAt(t, where)[0].ID
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(errs.String(), "wray job stop "+id) {
		t.Errorf("submit, interrupted: %d, %s", code, errs)
	}
	if j := jobAt(t, id, where); j.State != "running" {
		t.Errorf("left alone it is %+v", j)
	}
	cmd, rest, _ := follow(t, "ready\n", "job", "logs", where, "--follow", id)
	if r := run(t, "", "job", "stop", where, id); r.code != 0 || !strings.Contains(r.stdout, "stopped") {
		t.Errorf("job stop: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if b, err := io.ReadAll(rest); err != nil || len(b) > 0 {
		t.Errorf("after the end: %q, %v", b, err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("logs --follow of a job that was stopped: %v", err)
	}

	// The node is killed, and says what became of the job that ran.
	cmd, _, _ = follow(t, "ready\n", "job", "submit", where, module)
	id = jobsAt(t, where)[0].ID
	if err := node.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("submit to a node that was killed ended with 0")
	}
	_ = node.cmd.Wait()
	node = begin(t, "listens at unix://", wray, start...)
	if j := jobAt(t, id, where); j.State != "failed" || !strings.Contains(j.Error, "the node ended while the job ran") {
		t.Errorf("after the node was killed: %+v", j)
	}
	if r := run(t, "", "job", "logs", where, id); r.code != 0 || r.stdout != "ready\n" {
		t.Errorf("its log: %d, %q, %s", r.code, r.stdout, r.stderr)
	}
	if r := run(t, "", "job", "status", where, "job-aaaaaaaaaaaaaaaa"); r.code != 1 || !strings.Contains(r.stderr, "wray job list") {
		t.Errorf("a job that is not there: %d, %s", r.code, r.stderr)
	}
	// A node that is interrupted ends its jobs.
	cmd, _, _ = follow(t, "ready\n", "job", "submit", where, module)
	if err := node.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := node.cmd.Wait(); err != nil || node.errs.Len() > 0 {
		t.Errorf("the node, interrupted: %v, %s", err, node.errs.String())
	}
	_ = cmd.Wait()
	begin(t, "listens at unix://", wray, start...)
	if j := jobsAt(t, where)[0]; j.State != "failed" || j.Error != "its node was stopped, and the job with it" {
		t.Errorf("after the node was interrupted: %+v", j)
	}
}

// TestClusterJobs submits jobs to a cluster over the network, with a credential,
// and follows, lists and stops them at other nodes than the one that runs them.
func TestClusterJobs(t *testing.T) {
	dir := t.TempDir()
	head, atHead, said := clusterNode(t, dir, "one", "--head")
	join := invited(t, said)
	two, atTwo, saidTwo := clusterNode(t, dir, "two", "--address", join)
	os.Unsetenv("WRAY_JOIN_TOKEN")
	addr := regexp.MustCompile(`node two is in the cluster, at (\S+)`).FindStringSubmatch(saidTwo)
	if addr == nil {
		t.Fatalf("node two does not say where it is: %s", saidTwo)
	}
	awaitStatus(t, atHead, "two", "alive")
	awaitStatus(t, atTwo, "one", "alive")

	// Nobody is heard without a credential, and no node but a head makes one.
	if r := run(t, "", "job", "list", "--address", addr[1]); r.code != 2 || !strings.Contains(r.stderr, "wray login --address") {
		t.Errorf("without a credential: %d, %s", r.code, r.stderr)
	}
	key := filepath.Join(dir, "alice.pem")
	if r := run(t, "", "operator", "alice", "--address", atTwo, "--out", key); r.code != 1 || !strings.Contains(r.stderr, "no head") {
		t.Errorf("a credential of a node that is no head: %d, %s", r.code, r.stderr)
	}
	if r := run(t, "", "operator", "alice", "--address", atHead, "--out", key); r.code != 0 || !strings.Contains(r.stdout, "--credential "+key) {
		t.Fatalf("wray operator: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the credential's file: %v, %v", st, err)
	}
	t.Setenv("WRAY_CREDENTIAL", key)
	far, near := "--address="+addr[1], "--address="+atHead

	module := endless(t)
	if r := run(t, "", "job", "submit", far, "--dir", dir+":/here", module); r.code != 2 || !strings.Contains(r.stderr, "another machine's") {
		t.Errorf("a directory over the network: %d, %s", r.code, r.stderr)
	}
	r := run(t, "", "job", "submit", far, "--detach", module)
	id := strings.TrimSpace(r.stdout)
	if r.code != 0 || id == "" {
		t.Fatalf("submit over the network: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	// The other node knows of it soon, and has its output and its end.
	cmd, rest, _ := follow(t, "ready\n", "job", "logs", far, "--follow", id)
	awaitJobs(t, 1, near)
	if j := jobAt(t, id, near); j.Node != "two" || j.By != "operator alice" || j.State != "running" {
		t.Errorf("at the other node it is %+v", j)
	}
	cmd2, rest2, _ := follow(t, "ready\n", "job", "logs", near, "--follow", id)
	if r := run(t, "", "job", "stop", near, id); r.code != 0 || !strings.Contains(r.stdout, "stopped") {
		t.Errorf("stop at the other node: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	for _, r := range []io.Reader{rest, rest2} {
		if b, err := io.ReadAll(r); err != nil || len(b) > 0 {
			t.Errorf("after the end: %q, %v", b, err)
		}
	}
	if err := errors.Join(cmd.Wait(), cmd2.Wait()); err != nil {
		t.Errorf("logs --follow of a job that was stopped: %v", err)
	}

	// One ends as its driver does, whichever node it is at.
	ends := program(t, "package main\n\nimport \"os\"\n\nfunc main() { println(\"out\"); os.Exit(len(os.Args)) }\n")
	if r := run(t, "", "job", "submit", far, ends, "--", "a", "b"); r.code != 3 || !strings.Contains(r.stderr, "out\n") {
		t.Errorf("a job that ends with 3: %d, %s", r.code, r.stderr)
	}

	// The same port speaks HTTP to whoever has a credential.
	cred, err := auth.OpenOperator(key)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: cred.ClientConfig("http/1.1")}
	defer transport.CloseIdleConnections()
	get := func(path string) string {
		t.Helper()
		r, err := (&http.Client{Transport: transport, Timeout: patience}).Get("https://" + addr[1] + path)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		if err != nil || r.StatusCode != http.StatusOK {
			t.Errorf("GET %s: %d, %v, %s", path, r.StatusCode, err, b)
		}
		return string(b)
	}
	if got := get("/v1/jobs"); strings.Count(got, `"id":"job-`) != 2 {
		t.Errorf("jobs over HTTP: %s", got)
	}
	if got := get("/v1/jobs/" + id + "/logs?follow=true"); !strings.Contains(got, `"text":"ready\n"`) {
		t.Errorf("logs over HTTP: %s", got)
	}

	// The node that runs one dies: the others say so, and it too when it is back.
	r = run(t, "", "job", "submit", far, "--detach", module)
	id = strings.TrimSpace(r.stdout)
	awaitJobs(t, 3, near)
	if err := two.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	awaitStatus(t, atHead, "two", "dead")
	if j := jobAt(t, id, near); j.State != "failed" || !strings.Contains(j.Error, "node two") {
		t.Errorf("after its node died: %+v", j)
	}
	if r := run(t, "", "job", "logs", near, id); r.code != 1 || !strings.Contains(r.stderr, "node two") {
		t.Errorf("its log: %d, %s", r.code, r.stderr)
	}
	_ = two.cmd.Wait()
	_, _, saidTwo = clusterNode(t, dir, "two")
	awaitStatus(t, atHead, "two", "alive")
	if j := jobAt(t, id, near); j.State != "failed" {
		t.Errorf("after its node is back: %+v", j)
	}

	// A credential that is revoked is good no more.
	far = "--address=" + regexp.MustCompile(`node two is in the cluster, at (\S+)`).FindStringSubmatch(saidTwo)[1]
	if len(jobsAt(t, far)) != 3 {
		t.Errorf("jobs at node two: %+v", jobsAt(t, far))
	}
	if r := run(t, "", "operator", "alice", "--revoke", "--address", atHead); r.code != 0 {
		t.Errorf("operator --revoke: %d, %s", r.code, r.stderr)
	}
	for deadline := time.Now().Add(patience); ; {
		r := run(t, "", "job", "list", far)
		if r.code == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("a credential that was revoked is good")
		}
	}
	if err := head.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if err := head.cmd.Wait(); err != nil || head.errs.Len() > 0 {
		t.Errorf("the head, which was interrupted: %v: %s", err, head.errs.String())
	}
}
