package e2e

import (
	"crypto/tls"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// secretOf is the part of a token that nobody may see.
func secretOf(token string) string { return strings.Split(token, "_")[2] }

// TestIdentity begins a cluster, has its first admin make users, who do over the
// network what they may and no more, at any node, until their tokens are revoked.
// No token is found in anything that is kept or said; what was decided is.
func TestIdentity(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("XDG_CONFIG_HOME", filepath.Join(dir, "config"))
	for _, v := range []string{"WRAY_TOKEN", "WRAY_CREDENTIAL", "WRAY_ADDRESS"} {
		t.Setenv(v, "")
	}
	// What libraries say of what they do is said too.
	t.Setenv("GRPC_GO_LOG_SEVERITY_LEVEL", "info")
	t.Setenv("GRPC_GO_LOG_VERBOSITY_LEVEL", "99")
	head, atHead, said := clusterNode(t, dir, "one", "--head")
	admin := regexp.MustCompile(`wrayu1_\S+`).FindString(said)
	where := regexp.MustCompile(`wray login --address (\S+)`).FindStringSubmatch(said)
	if admin == "" || where == nil {
		t.Fatalf("the head shows no first admin: %s", said)
	}
	join := invited(t, said)
	two, _, saidTwo := clusterNode(t, dir, "two", "--address", join)
	t.Setenv("WRAY_JOIN_TOKEN", "")
	m := regexp.MustCompile(`node two is in the cluster, at (\S+)`).FindStringSubmatch(saidTwo)
	if m == nil {
		t.Fatalf("node two does not say where it is: %s", saidTwo)
	}
	far := m[1]
	awaitStatus(t, atHead, "two", "alive")

	// The admin logs in; who has no token, or a wrong one, does not.
	if r := run(t, "", "job", "list", "--address", where[1]); r.code != 2 || !strings.Contains(r.stderr, "wray login") {
		t.Errorf("before the login: %d, %s", r.code, r.stderr)
	}
	c := "b"
	if secretOf(admin)[0] == 'b' {
		c = "c"
	}
	wrong := strings.Replace(admin, secretOf(admin), c+secretOf(admin)[1:], 1)
	for _, text := range []string{"", "x", wrong} {
		if r := run(t, text, "login", "--address", where[1]); r.code == 0 || strings.Contains(r.stdout+r.stderr, secretOf(admin)[1:]) {
			t.Errorf("login with %.12q: %d, %s", text, r.code, r.stderr)
		}
	}
	if r := run(t, admin+"\n", "login", "--address", where[1]); r.code != 0 {
		t.Fatalf("wray login: %d, %s", r.code, r.stderr)
	}
	kept, err := filepath.Glob(filepath.Join(dir, "config", "wray", "tokens", "*"))
	if err != nil || len(kept) != 1 {
		t.Fatalf("kept: %q, %v", kept, err)
	}
	if st, err := os.Stat(kept[0]); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("the token's file: %v, %v", st, err)
	}
	if r := run(t, "", "job", "list", "--address", where[1]); r.code != 0 {
		t.Errorf("after the login: %d, %s", r.code, r.stderr)
	}

	// Users.
	people := func(args ...string) result {
		t.Helper()
		r := run(t, "", append(args, "--address", atHead)...)
		if r.code != 0 {
			t.Fatalf("wray %s: %d, %s", strings.Join(args, " "), r.code, r.stderr)
		}
		return r
	}
	token := func(user string, args ...string) string {
		t.Helper()
		file := filepath.Join(dir, user+".token")
		people(append([]string{"token", "create", user, "--out", file}, args...)...)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		os.Remove(file)
		return strings.TrimSpace(string(b))
	}
	// The admin sees to them at the head's socket, or over the network.
	if r := run(t, "", "user", "add", "eve", "--role", "viewer", "--address", where[1]); r.code != 0 {
		t.Fatalf("wray user add over the network: %d, %s", r.code, r.stderr)
	}
	if r := run(t, "", "user", "list", "--address", where[1]); r.code != 0 || !strings.Contains(r.stdout, "eve") || !strings.Contains(r.stdout, "user admin of tenant local") {
		t.Errorf("wray user list over the network: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	people("user", "add", "dev", "--service")
	eve, dev := token("eve", "--note", "laptop"), token("dev")
	as := func(who string, args ...string) result {
		t.Helper()
		t.Setenv("WRAY_TOKEN", who)
		defer t.Setenv("WRAY_TOKEN", "")
		return run(t, "", append(args, "--address", far)...)
	}
	for as(dev, "job", "list").code != 0 || as(eve, "job", "list").code != 0 { // until node two has heard of them
		if t.Context().Err() != nil {
			t.Fatal("node two hears of no user")
		}
	}
	module := endless(t)
	if r := as(eve, "job", "submit", "--detach", module); r.code != 1 || !strings.Contains(r.stderr, "viewer") {
		t.Errorf("a viewer submits a job: %d, %s", r.code, r.stderr)
	}
	r := as(dev, "job", "submit", "--detach", module)
	id := strings.TrimSpace(r.stdout)
	if r.code != 0 || id == "" {
		t.Fatalf("a developer submits a job: %d, %s", r.code, r.stderr)
	}
	if r := as(eve, "job", "status", id); r.code != 0 || !strings.Contains(r.stdout, "service dev") {
		t.Errorf("a viewer looks at it: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if r := as(dev, "user", "list"); r.code != 1 || !strings.Contains(r.stderr, "is not for who calls") {
		t.Errorf("a developer lists users: %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if r := as(eve, "job", "stop", id); r.code != 1 {
		t.Errorf("a viewer stops it: %d, %s", r.code, r.stdout)
	}

	// The same over HTTP, where a page of a browser and a wrong name get nothing.
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}}
	defer tr.CloseIdleConnections()
	get := func(token string, change func(*http.Request)) int {
		req, err := http.NewRequest("GET", "https://"+far+"/v1/jobs", nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		if change != nil {
			change(req)
		}
		res, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		_, _ = io.Copy(io.Discard, res.Body)
		return res.StatusCode
	}
	for name, got := range map[string]int{"401 nobody": get("", nil), "401 wrong": get(wrong, nil), "200 viewer": get(eve, nil),
		"421 name": get(eve, func(r *http.Request) { r.Host = "evil.example" })} {
		if fmt.Sprint(got, name[3:]) != name {
			t.Errorf("HTTP: want %s, it is %d", name, got)
		}
	}
	for !strings.Contains(as(eve, "job", "logs", id).stdout, "ready") { // it runs, in a worker
		if t.Context().Err() != nil {
			t.Fatal("the job does not run")
		}
	}
	environs(t, admin, eve, dev)
	if r := as(dev, "job", "stop", id); r.code != 0 {
		t.Errorf("a developer stops it: %d, %s", r.code, r.stderr)
	}

	// What is listed shows no token. What is revoked is good no more.
	list := people("token", "list").stdout
	evesID := strings.Split(eve, "_")[1]
	if !strings.Contains(list, evesID) || !strings.Contains(list, "laptop") || strings.Contains(list, secretOf(eve)) {
		t.Errorf("tokens:\n%s", list)
	}
	people("token", "revoke", evesID)
	people("user", "set", "dev", "--disable")
	for _, who := range []string{eve, dev} {
		var r result
		for r = as(who, "job", "list"); r.code == 0 && t.Context().Err() == nil; {
			r = as(who, "job", "list")
		}
		if !strings.Contains(r.stderr, "does not know who asks") {
			t.Errorf("after it was revoked: %d, %s", r.code, r.stderr)
		}
	}
	if r := run(t, "", "logout", "--address", where[1]); r.code != 0 {
		t.Errorf("wray logout: %d, %s", r.code, r.stderr)
	}
	head.end()
	two.end()
	for what, text := range map[string]string{"one": head.errs.String(), "two": two.errs.String() + saidTwo} {
		for _, token := range []string{admin, eve, dev} {
			if strings.Contains(text, secretOf(token)) {
				t.Errorf("node %s says a token", what)
			}
		}
	}
	if n := searched(t, dir, secretOf(admin), secretOf(eve), secretOf(dev)); n < 10 {
		t.Errorf("%d files were looked into", n)
	}

	// What was decided is on record, and holds together.
	for node, wants := range map[string][]string{"one": {`"action":"people.manage","object":"user eve of tenant local, viewer","decision":"allowed"`, `"action":"self.login"`, `revoke`},
		"two": {`"action":"job.submit","object":"/wray.jobs.v1.Jobs/Submit","decision":"denied"`, `"who":"service dev of tenant local"`, `"action":"module.admit"`, `"action":"job.stop"`}} {
		log := filepath.Join(dir, node, "audit")
		if r := run(t, "", "audit", "verify", log); r.code != 0 || !strings.Contains(r.stdout, "hold together") {
			t.Errorf("audit of node %s: %d, %s%s", node, r.code, r.stdout, r.stderr)
		}
		r := run(t, "", "audit", "export", log)
		for _, w := range wants {
			if w != "revoke" && !strings.Contains(r.stdout, w) {
				t.Errorf("node %s did not record %s:\n%s", node, w, r.stdout)
			}
		}
		if r := run(t, "", "audit", "export", "--denied", log); strings.Contains(r.stdout, `"allowed"`) {
			t.Errorf("export --denied: %s", r.stdout)
		}
		files, err := filepath.Glob(filepath.Join(log, "*.jsonl"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%q, %v", files, err)
		}
		b, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(files[0], []byte(strings.Replace(string(b), "allowed", "denied", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		if r := run(t, "", "audit", "verify", log); r.code != 1 || !strings.Contains(r.stderr, ".jsonl, line ") {
			t.Errorf("a record that was changed: %d, %s", r.code, r.stderr)
		}
	}
}

// searched looks for texts in all files under a directory, and counts them.
func searched(t *testing.T, dir string, never ...string) (n int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		n++
		for _, s := range never {
			if strings.Contains(string(b), s) {
				t.Errorf("%s has a token", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	return n
}

// environs looks for tokens in the command lines and environments of all processes.
func environs(t *testing.T, tokens ...string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/environ")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d processes, %v", len(files), err)
	}
	for _, name := range files {
		for _, f := range []string{name, filepath.Join(filepath.Dir(name), "cmdline")} {
			b, err := os.ReadFile(f)
			if err != nil {
				continue // it has ended, or is another's
			}
			for _, token := range tokens {
				if strings.Contains(string(b), secretOf(token)) {
					t.Errorf("%s has a token: %.100q", f, b)
				}
			}
		}
	}
}

// TestAdminFile has a head whose output is kept put the first admin's token into a
// file, for its user alone, and make no other when it starts again.
func TestAdminFile(t *testing.T) {
	dir := t.TempDir()
	head, _, said := clusterNode(t, dir, "one", "--head", "--no-token")
	path := filepath.Join(dir, "one", "admin.token")
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 || !strings.Contains(said, path) || strings.Contains(said, "wrayu1_") {
		t.Fatalf("%v, %v: %s", st, err, said)
	}
	first, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(first), "wrayu1_") {
		t.Errorf("%.10q, %v", first, err)
	}
	head.end()
	_, _, said = clusterNode(t, dir, "one")
	if again, err := os.ReadFile(path); err != nil || string(again) != string(first) || strings.Contains(said, "admin") || strings.Contains(said, "wrayu1_") {
		t.Errorf("the second start: %v, %s", err, said)
	}
}

// TestAloneListensNowhere holds that a node without a cluster, which has neither TLS
// nor tokens, has no port.
func TestAloneListensNowhere(t *testing.T) {
	dir := t.TempDir()
	p := begin(t, "listens at unix://", wray, "start", "--alone", "--socket", filepath.Join(dir, "n.sock"), "--jobs-dir", filepath.Join(dir, "jobs"))
	inodes := map[string]bool{}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.cmd.Process.Pid))
	if err != nil || len(fds) == 0 {
		t.Fatalf("%d descriptors, %v", len(fds), err)
	}
	for _, fd := range fds {
		if at, err := os.Readlink(fd); err == nil && strings.HasPrefix(at, "socket:[") {
			inodes[strings.Trim(at, "socket:[]")] = true
		}
	}
	if len(inodes) == 0 {
		t.Fatal("not even its own socket is seen")
	}
	for _, proto := range []string{"tcp", "tcp6", "udp", "udp6"} {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", p.cmd.Process.Pid, proto))
		if err != nil {
			continue // this machine has none of that
		}
		for _, line := range strings.Split(string(b), "\n") {
			if f := strings.Fields(line); len(f) > 9 && inodes[f[9]] {
				t.Errorf("it has a socket of %s: %s", proto, line)
			}
		}
	}
}
