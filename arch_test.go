package wray_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// The rules of this file hold for the source as it lies on disk, for every
// platform at once: files are parsed and not built, so that an import in
// x_windows.go is seen on Linux.

const modulePath = "github.com/wray-project/wray"

// rule forbids packages to import others. A package is named by its directory
// under the module, "." for the root; a trailing "/..." takes in what is below;
// an import outside the module is named in full.
type rule struct {
	from   []string
	except []string // packages that from takes in but the rule does not
	not    []string // what may not be imported, directly or through packages of this module
	direct bool     // look at imports that are written in the package alone
	why    string
}

var rules = []rule{
	{from: []string{"."}, not: []string{"nonstd"},
		why: "the vocabulary is below everything, builds for guests, and drags nothing in"},
	{from: []string{"wasm/abi"}, not: []string{"any"},
		why: "the numbers of the guest interface build everywhere and depend on nothing"},
	{from: []string{"sdk/...", "libs/...", "wasm/guest/...", "examples/..."},
		not: []string{"host/...", "scheduler/...", "objectstore/...", "cmd/..."},
		why: "what users build on runs inside a sandbox: the host's side is not there"},
	{from: []string{"sdk/...", "wasm/guest/..."}, not: []string{"libs/..."},
		why: "libraries are written on the SDK as a user could write them; it must not know them"},
	{from: []string{"wasm/guest/..."}, not: []string{"sdk/..."},
		why: "the binding is below the SDK, so that other SDKs can stand on it"},
	{from: []string{"wasm/rewrite/..."}, not: []string{"host/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/guest/...", "github.com/tetratelabs/wazero/..."},
		why: "the passes are for any engine"},
	{from: []string{"scheduler/..."}, not: []string{"os", "time", "net", "net/...", "os/...", "math/rand", "math/rand/v2", "crypto/rand"}, direct: true,
		why: "the scheduler is a state machine: the clock, randomness and the world reach it as events"},
	{from: []string{"scheduler/..."}, not: []string{"github.com/tetratelabs/wazero/...", "host/...", "objectstore/...", "sdk/...", "libs/...", "wasm/..."},
		why: "the scheduler decides about tasks, not about how they run"},
	{from: []string{"objectstore/..."}, not: []string{"github.com/tetratelabs/wazero/...", "host/...", "scheduler/...", "sdk/...", "libs/...", "wasm/rewrite/...", "wasm/guest/..."},
		why: "the object store knows bytes and references, not tasks or sandboxes"},
	{from: []string{"./..."}, except: []string{"host/sandbox/..."}, not: []string{"github.com/tetratelabs/wazero/..."}, direct: true,
		why: "one package knows the engine, so that its traps are handled in one place"},
	{from: []string{"host/wasi/...", "host/jail/...", "host/statelog/...", "host/durable/...", "host/codecache/...", "host/doctor/..."},
		not: []string{"github.com/tetratelabs/wazero/...", "host/sandbox/...", "host/worker/...", "host/node/..."},
		why: "these are parts of their own, tested without an engine"},
	{from: []string{"internal/link/...", "internal/clientwire/...", "internal/nodeaddr/..."},
		not: []string{"host/...", "scheduler/...", "objectstore/...", "sdk/...", "libs/...", "wasm/guest/...", "wasm/rewrite/...", "github.com/tetratelabs/wazero/..."},
		why: "a node and its native clients, which know nothing of each other, both speak it"},
	{from: []string{"wasm/guest/...", "objectstore/...", "scheduler/..."}, not: []string{"internal/link/...", "internal/clientwire/...", "internal/nodeaddr/..."},
		why: "a guest has imports and no socket, and what is below the worker knows no messages"},
	{from: []string{"host/worker/...", "internal/clientwire/...", "internal/link/..."}, not: []string{"internal/nodeaddr/..."},
		why: "a worker is given its sockets, and connects to nothing"},
	{from: []string{"host/codecache/...", "host/node/..."}, not: []string{"wasm/rewrite/..."}, direct: true,
		why: "a node never decodes what a guest wrote: that is for the compiler's process, which is locked up"},
	{from: []string{"host/sandbox/..."}, not: []string{"scheduler/...", "objectstore/...", "host/worker/...", "host/node/...", "host/cluster/..."},
		why: "the engine runs sandboxes; which, when and for whom is decided above it"},
	{from: []string{"host/worker/..."}, not: []string{"host/node/...", "host/member/...", "host/cluster/...", "host/control/...", "host/auth/...", "internal/rpc/...", "net", "net/...", "crypto/tls"}, direct: true,
		why: "a worker may be taken over by a guest: it holds no key and no socket"},
	{from: []string{"host/worker/..."}, not: []string{"host/egress/client"},
		why: "a worker has no network: the node asks"},
	{from: []string{"host/egress/..."}, not: []string{"host/node/...", "host/worker/...", "host/member/...", "host/sandbox/...", "host/control/...", "scheduler/...", "objectstore/...", "sdk/...", "internal/...", "wasm/..."},
		why: "who may ask what is given to it, so that it can move to a process of its own"},
	{from: []string{"host/control/..."}, not: []string{"host/sandbox/...", "host/worker/...", "host/node/...", "host/cluster/...", "host/codecache/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/..."},
		why: "the control state is records: what they mean is for those who write them"},
	{from: []string{"host/jobs/..."}, not: []string{"host/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/...", "net", "net/..."}, direct: true,
		why: "which jobs there are is records and logs on disk: how they run, and who asks, is for the node"},
	{from: []string{"internal/jobhttp/..."}, not: []string{"host/node/...", "host/jobs/...", "host/worker/...", "host/control/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/..."}, direct: true,
		why: "it reads requests and writes answers: what is done about jobs is given to it"},
	{from: []string{"host/auth/..."}, not: []string{"host/sandbox/...", "host/worker/...", "host/node/...", "host/cluster/...", "scheduler/...", "objectstore/...", "sdk/...", "internal/...", "google.golang.org/..."},
		why: "who belongs to a cluster is decided by keys and records, whatever carries the question"},
	{from: []string{"host/access/..."}, not: []string{"host/sandbox/...", "host/worker/...", "host/node/...", "host/member/...", "host/cluster/...", "internal/rpc/...", "scheduler/...", "objectstore/...", "sdk/...", "net/http", "google.golang.org/..."},
		why: "who may do what is decided by records and one table, whatever carries the question"},
	{from: []string{"host/audit/..."}, not: []string{"host/...", "scheduler/...", "objectstore/...", "sdk/...", "internal/rpc/...", "google.golang.org/..."},
		why: "what is recorded is text: who may, and what is done, is for those who record it"},
	{from: []string{"internal/httpgate/..."}, not: []string{"host/node/...", "host/member/...", "host/worker/...", "host/control/...", "internal/rpc/...", "scheduler/...", "objectstore/...", "sdk/..."}, direct: true,
		why: "it stands before all that is served over HTTP, and knows none of it"},
	{from: []string{"./..."}, except: []string{"internal/rpc/...", "host/control/etcdstore/..."}, not: []string{"google.golang.org/grpc/...", "google.golang.org/protobuf/..."}, direct: true,
		why: "one package knows gRPC and what is generated for it, so that what travels is decided in one place"},
	{from: []string{"internal/rpc/..."}, not: []string{"host/sandbox/...", "host/worker/...", "host/node/...", "host/cluster/...", "host/peer/...", "host/control/etcdstore/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/..."},
		why: "it carries calls between nodes, and does nothing about them"},
	{from: []string{"host/worker/...", "host/sandbox/...", "host/wasi/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/...", "examples/..."}, not: []string{"internal/rpc/..."},
		why: "nodes alone speak to nodes"},
	{from: []string{"host/bulk/..."}, not: []string{"host/...", "internal/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/...", "google.golang.org/..."},
		why: "it moves bytes over connections that it is given, whoever made them, and whatever they are of"},
	{from: []string{"host/peer/..."}, not: []string{"host/sandbox/...", "host/worker/...", "host/node/...", "host/cluster/...", "host/control/etcdstore/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/..."},
		why: "what nodes say to each other is bytes to it"},
	{from: []string{"./..."}, except: []string{"host/control/etcdstore/..."}, not: []string{"go.etcd.io/...", "go.uber.org/zap/..."}, direct: true,
		why: "one package knows etcd, so that its errors are told apart in one place"},
	{from: []string{"./..."}, except: []string{"host/control/etcdstore/...", "host/node/...", "cmd/...", "tests/..."}, not: []string{"host/control/etcdstore/..."},
		why: "etcd costs 18 MB and 11 ms of each start: whoever needs the control state is given a control.Store"},
	{from: []string{"./..."}, except: []string{"host/cluster/gossip/..."}, not: []string{"github.com/hashicorp/..."}, direct: true,
		why: "one package knows serf: to all others it is a hint about who is there"},
	{from: []string{"host/cluster/..."}, except: []string{"host/cluster/directory/..."}, not: []string{"host/control/..."},
		why: "gossip and liveness need no control state, and go on without it"},
	{from: []string{"host/cluster/..."}, not: []string{"host/sandbox/...", "host/worker/...", "host/node/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/..."},
		why: "who is there is known before anything else is"},
	{from: []string{"host/autoscale/plan"}, not: []string{"os", "net", "net/...", "os/...", "context", "sync", "math/rand", "math/rand/v2", "crypto/rand", "host/...", "scheduler/...", "internal/..."}, direct: true,
		why: "how many nodes there are to be is decided by a state machine: time and the world reach it as values"},
	{from: []string{"host/autoscale/..."}, not: []string{"host/sandbox/...", "host/worker/...", "host/node/...", "host/member/...", "host/control/...", "host/peer/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/..."},
		why: "what waits, who lives and who leads is given to it"},
	{from: []string{"host/member/..."}, not: []string{"host/sandbox/...", "host/worker/...", "host/codecache/...", "scheduler/...", "objectstore/...", "sdk/...", "wasm/..."},
		why: "a node is a member of its cluster before it runs anything"},
	{from: []string{"./..."}, except: []string{"host/node/...", "cmd/...", "tests/..."}, not: []string{"host/node/..."},
		why: "the composition root depends on the world; who imports it does too"},
	{from: []string{"./..."}, except: []string{"cmd/...", "tests/..."}, not: []string{"cmd/...", "tests/..."},
		why: "programs and tests are on top"},
	{from: []string{"./..."}, except: testPackages, not: []string{"testing", "testing/..."}, direct: true,
		why: "shipped binaries carry no test framework, and register no -test flags"},
}

// testPackages exist for tests alone, and may import testing.
var testPackages = []string{"tests/...", "objectstore/storetest", "scheduler/schedtest", "host/wasi/wasitest", "internal/testenv", "host/control/controltest", "host/cluster/clustertest", "host/peer/peertest"}

// maxLines is the most lines of a file that a person wrote.
const maxLines = 700

// maxFileBytes is the most bytes of a file that is kept.
const maxFileBytes = 1 << 20

// TestImports holds the directions of imports. Test files are exempt: they may
// put parts together that do not know each other.
func TestImports(t *testing.T) {
	tree := parseTree(t)
	for _, msg := range violations(tree, rules) {
		t.Error(msg)
	}
}

// TestRulesFindWhatTheyForbid runs the rules over a tree that breaks them.
func TestRulesFindWhatTheyForbid(t *testing.T) {
	tree := map[string]*pkg{}
	add := func(dir string, imports ...string) {
		p := &pkg{dir: dir, imports: map[string]string{}}
		for _, i := range imports {
			p.imports[i] = dir + "/x.go"
		}
		tree[dir] = p
	}
	add(".", "fmt", "golang.org/x/sys/unix")
	add("wasm/abi", "fmt")
	add("sdk", modulePath+"/internal/middle")
	add("internal/middle", modulePath+"/host/sandbox")
	add("host/sandbox", "github.com/tetratelabs/wazero")
	add("host/wasi", "github.com/tetratelabs/wazero/api")
	add("scheduler", "time", "fmt")
	add("objectstore", modulePath+"/internal/link")
	add("objectstore/storetest", "testing")
	add("internal/link", "testing")
	add("host/worker", modulePath+"/host/node", "net")
	add("host/node", "fmt")
	add("host/control", "go.etcd.io/etcd/client/v3")
	add("host/auth", modulePath+"/host/control/etcdstore")
	add("host/peer", "google.golang.org/grpc/codes")
	add("cmd/wray", modulePath+"/host/node")
	got := violations(tree, rules)
	for _, want := range []string{
		". imports golang.org/x/sys/unix",
		"wasm/abi imports fmt",
		"sdk imports host/sandbox (through internal/middle)",
		"host/wasi imports github.com/tetratelabs/wazero/api",
		"scheduler imports time",
		"objectstore imports internal/link",
		"internal/link imports testing",
		"host/worker imports host/node",
		"host/worker imports net",
		"host/control imports go.etcd.io/etcd/client/v3",
		"host/auth imports host/control/etcdstore",
		"host/peer imports google.golang.org/grpc/codes",
	} {
		if !slices.ContainsFunc(got, func(s string) bool { return strings.Contains(s, want+":") }) {
			t.Errorf("not found: %s", want)
		}
	}
	for _, never := range []string{"cmd/wray imports", "host/sandbox imports", "storetest imports", "scheduler imports fmt"} {
		for _, g := range got {
			if strings.Contains(g, never) {
				t.Errorf("false: %s", g)
			}
		}
	}
	if t.Failed() {
		t.Logf("found:\n%s", strings.Join(got, "\n"))
	}
}

// TestSchedulerIsPassive holds that the scheduler starts no goroutine and keeps
// no channel: whoever drives it decides when it runs, and under which lock.
func TestSchedulerIsPassive(t *testing.T) {
	files, err := filepath.Glob("scheduler/*.go")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			switch n.(type) {
			case *ast.GoStmt, *ast.ChanType, *ast.SelectStmt:
				t.Errorf("%s: the scheduler is a state machine; goroutines and channels belong to its driver", fset.Position(n.Pos()))
			}
			return true
		})
	}
}

// TestPackageDocs holds that every package says what it is, in one place.
func TestPackageDocs(t *testing.T) {
	for _, p := range parseTree(t) {
		switch {
		case len(p.docs) > 1:
			t.Errorf("%s has %d package docs, in %s: keep one", p.dir, len(p.docs), strings.Join(p.docs, ", "))
		case len(p.docs) == 0 && p.files > 0:
			t.Errorf("%s has no package doc", p.dir)
		}
	}
}

// guestTree is a guest of tests, which names the directories it is granted.
const guestTree = "host/wasi/testdata/guest/"

// TestFiles holds what every kept file must be: short, when a person wrote it;
// small; and free of the paths of one machine.
func TestFiles(t *testing.T) {
	machine := [][]byte{[]byte("/" + "work/"), []byte("/" + "root/"), []byte("/" + "home/")}
	for _, name := range keptFiles(t) {
		st, err := os.Lstat(name)
		if err != nil || !st.Mode().IsRegular() {
			continue
		}
		if st.Size() > maxFileBytes {
			t.Errorf("%s has %d bytes, more than %d: keep it elsewhere and fetch or build it", name, st.Size(), maxFileBytes)
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if bytes.IndexByte(b, 0) >= 0 {
			continue // not text
		}
		n := bytes.Count(b, []byte("\n"))
		if strings.HasSuffix(name, ".go") && n > maxLines && !isGenerated(b) {
			t.Errorf("%s has %d lines, more than %d: split it", name, n, maxLines)
		}
		for i, line := range bytes.Split(b, []byte("\n")) {
			for _, m := range machine {
				if strings.HasPrefix(name, guestTree) {
					break
				}
				if at := bytes.Index(line, m); at >= 0 && startsPath(line, at) {
					t.Errorf("%s:%d names a path of one machine (%s…)", name, i+1, m)
				}
			}
		}
	}
}

// startsPath reports whether a path begins at line[at], which is not the middle
// of a longer one, nor the guest's side of host:guest.
func startsPath(line []byte, at int) bool {
	if at == 0 {
		return true
	}
	c := line[at-1]
	return c != '/' && c != '.' && c != '_' && c != '-' && c != ':' && c != '}' && c != ')' &&
		(c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z')
}

// TestFilesFindWhatTheyForbid holds that a path is told from part of one.
func TestFilesFindWhatTheyForbid(t *testing.T) {
	dir := "/" + "work/"
	for line, want := range map[string]bool{dir + "x": true, `"` + dir + `x"`: true, "see " + dir: true, "host" + dir: false, "." + dir: false} {
		if got := startsPath([]byte(line), strings.Index(line, dir)); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}

// docLink does not take a call of a generic function for a link, which has a
// quoted argument.
var docLink = regexp.MustCompile(`\]\(([^)#\s"]+)(#[^)]*)?\)`)

// TestDocLinks holds that documents name files that are there.
func TestDocLinks(t *testing.T) {
	n := 0
	for _, name := range keptFiles(t) {
		if !strings.HasSuffix(name, ".md") || strings.Contains(name, "testdata/") {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			continue // removed, and not yet committed
		}
		for _, m := range docLink.FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[1], ":") {
				continue // of the world
			}
			n++
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s, which is not there", name, m[1])
			}
		}
	}
	if n < 50 {
		t.Errorf("%d links found: the pattern does not see them", n)
	}
}

// claim is a command of docs/CLAIMS.md that names packages and tests of them.
var claim = regexp.MustCompile("`go test ([^`]*)`")

// TestClaims holds that every test, fuzz target and benchmark which docs/CLAIMS.md
// names is in one of the packages that its command names.
func TestClaims(t *testing.T) {
	page, err := os.ReadFile("docs/CLAIMS.md")
	if err != nil {
		t.Fatal(err)
	}
	funcs := map[string]string{} // of a directory: the sources of its tests
	for _, name := range keptFiles(t) {
		if strings.HasSuffix(name, "_test.go") {
			b, _ := os.ReadFile(name)
			funcs[filepath.ToSlash(filepath.Dir(name))] += string(b)
		}
	}
	n := 0
	for _, m := range claim.FindAllStringSubmatch(string(page), -1) {
		words := strings.Fields(m[1])
		var sources string
		for _, w := range words {
			dir, tree := strings.CutSuffix(strings.TrimPrefix(w, "./"), "/...")
			if !strings.HasPrefix(w, "./") {
				continue
			}
			found := false
			for d, src := range funcs {
				if d == dir || tree && strings.HasPrefix(d, dir+"/") {
					sources, found = sources+src, true
				}
			}
			if !found {
				t.Errorf("%s: no tests in %s", m[0], w)
			}
		}
		for i, w := range words[1:] {
			kind := map[string]string{"-run": "Test", "-bench": "Benchmark"}[words[i]]
			if pattern := strings.Trim(w, "'"); kind != "" && pattern != "^$" {
				for name := range strings.SplitSeq(pattern, "|") {
					n++
					name, _, _ = strings.Cut(strings.TrimPrefix(name, "^"), "/")
					if !regexp.MustCompile(`(?m)^func ` + kind + `\w*` + strings.TrimPrefix(strings.TrimSuffix(name, "$"), kind) + `\w*\(`).MatchString(sources) {
						t.Errorf("%s: no %s", m[0], name)
					}
				}
			}
		}
	}
	if n < 80 {
		t.Errorf("%d tests named: the pattern does not see them", n)
	}
}

// pkg is a directory with Go files.
type pkg struct {
	dir     string            // under the module, "." for the root
	imports map[string]string // of the files that are not tests: path to file
	docs    []string          // files with a package doc
	files   int               // files that are not tests
}

// parseTree reads the imports and docs of every Go package of the module.
func parseTree(t *testing.T) map[string]*pkg {
	t.Helper()
	tree := map[string]*pkg{}
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && (strings.HasPrefix(d.Name(), ".") || strings.HasPrefix(d.Name(), "_") || d.Name() == "testdata" || isModule(name)) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasPrefix(d.Name(), "_") || strings.HasPrefix(d.Name(), ".") {
			return nil
		}
		f, err := parser.ParseFile(fset, name, nil, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		dir := filepath.ToSlash(filepath.Dir(name))
		p := tree[dir]
		if p == nil {
			p = &pkg{dir: dir, imports: map[string]string{}}
			tree[dir] = p
		}
		if strings.HasSuffix(name, "_test.go") || ignored(f) {
			return nil
		}
		p.files++
		if f.Doc != nil && strings.TrimSpace(f.Doc.Text()) != "" {
			p.docs = append(p.docs, name)
		}
		for _, s := range f.Imports {
			i, err := strconv.Unquote(s.Path.Value)
			if err != nil {
				return err
			}
			if _, seen := p.imports[i]; !seen {
				p.imports[i] = name
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}

// ignored reports whether the file is a program run by hand, outside its
// package.
func ignored(f *ast.File) bool {
	for _, g := range f.Comments {
		for _, c := range g.List {
			if c.Pos() < f.Package && strings.HasPrefix(c.Text, "//go:build ignore") {
				return true
			}
		}
	}
	return false
}

// violations returns one line for each import that a rule forbids.
func violations(tree map[string]*pkg, rules []rule) []string {
	var out []string
	for _, r := range rules {
		for _, dir := range sortedKeys(tree) {
			if !matchesAny(r.from, dir) || matchesAny(r.except, dir) {
				continue
			}
			seen := map[string]bool{dir: true}
			var visit func(at string, through []string)
			visit = func(at string, through []string) {
				for _, i := range sortedKeys(tree[at].imports) {
					target, inside := inModule(i)
					if forbidden(r.not, target, inside) {
						via := ""
						if len(through) > 0 {
							via = " (through " + strings.Join(through, ", ") + ")"
						}
						out = append(out, fmt.Sprintf("%s: %s imports %s%s: forbidden, because %s", tree[at].imports[i], dir, target, via, r.why))
						continue
					}
					if r.direct || !inside || seen[target] || tree[target] == nil {
						continue
					}
					seen[target] = true
					visit(target, append(slices.Clone(through), target))
				}
			}
			visit(dir, nil)
		}
	}
	return out
}

// inModule returns the directory of a package of this module, or the import
// path of another.
func inModule(importPath string) (string, bool) {
	if importPath == modulePath {
		return ".", true
	}
	if dir, ok := strings.CutPrefix(importPath, modulePath+"/"); ok {
		return dir, true
	}
	return importPath, false
}

func forbidden(patterns []string, target string, inside bool) bool {
	for _, p := range patterns {
		switch p {
		case "any":
			return true
		case "nonstd":
			first, _, _ := strings.Cut(target, "/")
			if inside || strings.Contains(first, ".") {
				return true
			}
		default:
			if matches(p, target) {
				return true
			}
		}
	}
	return false
}

func matchesAny(patterns []string, dir string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, dir) })
}

func matches(pattern, dir string) bool {
	if pattern == "./..." {
		return true
	}
	if prefix, ok := strings.CutSuffix(pattern, "/..."); ok {
		return dir == prefix || strings.HasPrefix(dir, prefix+"/")
	}
	return dir == pattern
}

// keptFiles lists what is committed or would be. Where git is not there, every
// file is listed.
func keptFiles(t *testing.T) []string {
	t.Helper()
	out, err := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").Output()
	if err == nil {
		return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
	}
	t.Logf("git ls-files: %v; every file is looked at", err)
	var files []string
	err = filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			if err == nil {
				files = append(files, name)
			}
			return err
		}
		if base := path.Base(filepath.ToSlash(name)); base == ".git" || base == "bin" {
			return filepath.SkipDir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// isGenerated reports whether a tool says that it wrote the file.
func isGenerated(b []byte) bool {
	for line := range bytes.Lines(b) {
		if bytes.HasPrefix(line, []byte("// Code generated ")) && bytes.HasSuffix(bytes.TrimSpace(line), []byte("DO NOT EDIT.")) {
			return true
		}
		if bytes.HasPrefix(line, []byte("package ")) {
			return false
		}
	}
	return false
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// keyed is a field's number in CBOR.
var keyed = regexp.MustCompile(`cbor:"(\d+),keyasint`)

// TestCBORKeys holds that no two fields of a struct bear the same number: both
// would be left out of what is encoded, and nobody would be told. Merging two
// changes makes such pairs.
func TestCBORKeys(t *testing.T) {
	n := 0
	for _, name := range keptFiles(t) {
		if !strings.HasSuffix(name, ".go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
		if err != nil {
			continue // removed, and not yet committed; others are the compiler's
		}
		ast.Inspect(f, func(node ast.Node) bool {
			s, ok := node.(*ast.StructType)
			if !ok {
				return true
			}
			seen := map[string]bool{}
			for _, field := range s.Fields.List {
				if field.Tag == nil {
					continue
				}
				if m := keyed.FindStringSubmatch(field.Tag.Value); m != nil {
					n++
					if seen[m[1]] {
						t.Errorf("%s: two fields of a struct bear number %s", name, m[1])
					}
					seen[m[1]] = true
				}
			}
			return true
		})
	}
	if n < 300 {
		t.Errorf("%d numbered fields found: the pattern does not see them", n)
	}
}
