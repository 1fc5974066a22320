package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wray-project/wray/host/autoscale"
)

const deployDir = "../../deploy"

// commandLine is a command of the program that a file of deploy has.
type commandLine struct {
	where string
	args  []string
}

// deployed are the command lines of all files of deploy.
func deployed(t *testing.T) (lines []commandLine) {
	t.Helper()
	err := filepath.WalkDir(deployDir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		found := len(lines)
		add := func(args []string) { lines = append(lines, commandLine{name, args}) }
		switch {
		case strings.HasSuffix(name, ".yaml"):
			for _, doc := range documents(t, b) {
				walkYAML(doc, func(list []string) {
					if len(list) > 0 && list[0] == "start" {
						add(list)
					} else if len(list) > 1 && list[0] == "/usr/local/bin/wray" {
						add(list[1:])
					}
				})
			}
			if strings.HasSuffix(name, "network.yaml") {
				return nil
			}
		case strings.HasSuffix(name, ".service"):
			for _, m := range regexp.MustCompile(`(?m)^Exec\w+=/usr/local/bin/wray (.*)$`).FindAllStringSubmatch(string(b), -1) {
				args := strings.Fields(m[1])
				if last := len(args) - 1; args[last] == "$WRAY_FLAGS" {
					args = args[:last]
				}
				add(args)
			}
		case strings.HasSuffix(name, ".nomad.hcl"):
			for _, m := range regexp.MustCompile(`(?s)args = \[(.*?)\]`).FindAllStringSubmatch(string(b), -1) {
				var args []string
				for _, s := range regexp.MustCompile(`"([^"]*)"`).FindAllStringSubmatch(m[1], -1) {
					args = append(args, s[1])
				}
				add(args)
			}
		case strings.HasSuffix(name, "Containerfile"):
			m := regexp.MustCompile(`(?m)^ENTRYPOINT \["/usr/local/bin/wray"\]\nCMD \["(\w+)"\]$`).FindSubmatch(b)
			if m != nil {
				add([]string{string(m[1])})
			}
		default:
			return nil
		}
		if len(lines) == found {
			t.Errorf("%s: no command is found", name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

func documents(t *testing.T, b []byte) (docs []any) {
	t.Helper()
	d := yaml.NewDecoder(bytes.NewReader(b))
	for {
		var doc any
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, doc)
	}
}

// walkYAML calls f with each list of strings.
func walkYAML(v any, f func([]string)) {
	switch v := v.(type) {
	case map[string]any:
		for _, below := range v {
			walkYAML(below, f)
		}
	case []any:
		var list []string
		for _, below := range v {
			if s, ok := below.(string); ok {
				list = append(list, s)
			} else {
				walkYAML(below, f)
			}
		}
		if len(list) == len(v) {
			f(list)
		}
	}
}

// TestDeployFlags holds that what is deployed calls wray as it may be called.
func TestDeployFlags(t *testing.T) {
	lines := deployed(t)
	for _, l := range lines {
		if err := accepted(l.args); err != nil {
			t.Errorf("%s: wray %s: %v", l.where, strings.Join(l.args, " "), err)
		}
		// Whoever reads what is kept of the output must not be able to join.
		if slices.Contains(l.args, "--head") && !slices.Contains(l.args, "--no-token") {
			t.Errorf("%s: a head that prints a token into a log: wray %s", l.where, strings.Join(l.args, " "))
		}
	}
	if len(lines) < 14 {
		t.Errorf("only %d commands found: %v", len(lines), lines)
	}
	if accepted([]string{"start", "--no-such-flag"}) == nil || accepted([]string{"start", "--cpus=many"}) == nil || accepted([]string{"start", "more"}) == nil {
		t.Error("anything is accepted")
	}
}

// accepted says what is wrong with a command line, without running it.
func accepted(args []string) error {
	cmd, rest, err := newRoot(strings.NewReader(""), io.Discard, io.Discard).Find(args)
	if err != nil {
		return err
	}
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	return cmd.ValidateArgs(cmd.Flags().Args())
}

// TestDeployTimes holds that whatever stops a node leaves it the time that its
// drain takes.
func TestDeployTimes(t *testing.T) {
	const after = 30 * time.Second // in which others fetch what the node alone has
	for file, stops := range map[string]string{
		"kubernetes/heads.yaml": `terminationGracePeriodSeconds: (\d+)`, "kubernetes/workers.yaml": `terminationGracePeriodSeconds: (\d+)`,
		"nomad/wray.nomad.hcl": `kill_timeout = "(\d+)s"`, "systemd/wray.service": `TimeoutStopSec=(\d+)s`,
	} {
		b, err := os.ReadFile(filepath.Join(deployDir, file))
		if err != nil {
			t.Fatal(err)
		}
		drain := regexp.MustCompile(`--drain[ =](\w+)`).FindSubmatch(b)
		stop := regexp.MustCompile(stops).FindSubmatch(b)
		if drain == nil || stop == nil {
			t.Errorf("%s does not say how long a drain and a stop take", file)
			continue
		}
		within, err := time.ParseDuration(string(drain[1]))
		if limit, lerr := time.ParseDuration(string(stop[1]) + "s"); err != nil || lerr != nil || limit < within+2*after {
			t.Errorf("%s: a node is killed after %v (%v), in the middle of a drain of %v (%v)", file, limit, lerr, within, err)
		}
	}
}

// TestDeployTypes holds manifests and jobs to the types of who reads them.
func TestDeployTypes(t *testing.T) {
	check, err := filepath.Abs("../../bin/deploycheck")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(check); err != nil {
		t.Skip("SKIP: there is no bin/deploycheck: build it with make deploy-check")
	}
	files, err := filepath.Glob(filepath.Join(deployDir, "kubernetes", "*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	files = append(files, filepath.Join(deployDir, "kubernetes", "autoscale", "nodes.yaml"))
	files = append(files, filepath.Join(deployDir, "nomad", "wray.nomad.hcl"))
	if out, err := exec.Command(check, files...).CombinedOutput(); err != nil || len(files) < 4 {
		t.Errorf("%v: %v\n%s", files, err, out)
	}
	// What is wrong is found.
	for file, swap := range map[string][2]string{
		"kubernetes/workers.yaml":         {"readinessProbe:", "readynessProbe:"},
		"kubernetes/heads.yaml":           {"replicas: 2", "replicas: two"},
		"kubernetes/network.yaml":         {"policyTypes:", "policyKinds:"},
		"kubernetes/autoscale/nodes.yaml": {"resourceNames:", "resourceNaming:"},
		"nomad/wray.nomad.hcl":            {"kill_timeout =", "kill_patience ="},
	} {
		b, err := os.ReadFile(filepath.Join(deployDir, file))
		if err != nil {
			t.Fatal(err)
		}
		wrong := filepath.Join(t.TempDir(), filepath.Base(file))
		write(t, wrong, strings.Replace(string(b), swap[0], swap[1], 1))
		out, err := exec.Command(check, wrong).CombinedOutput()
		if said := strings.TrimSuffix(strings.Fields(swap[1])[0], ":"); err == nil || !strings.Contains(string(out), strings.TrimPrefix(said, "replicas")) {
			t.Errorf("%s with %s: %v, %s", file, swap[1], err, out)
		}
	}
}

// verifyUnit has systemd read a unit, with a program that is there.
func verifyUnit(t *testing.T, name, text string) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Skip("SKIP: there is no systemd-analyze")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), name)
	write(t, file, regexp.MustCompile(`(?m)^ExecStart=\S+`).ReplaceAllLiteralString(text, "ExecStart="+self))
	if out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s\n%s", err, out, text)
	}
}

func TestDeployUnit(t *testing.T) {
	b, err := os.ReadFile(filepath.Join(deployDir, "systemd", "wray.service"))
	if err != nil {
		t.Fatal(err)
	}
	verifyUnit(t, "wray.service", string(b))
}

// TestDeployDocs holds the commands of the page about it.
func TestDeployDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/DEPLOY.md")
	if err != nil {
		t.Fatal(err)
	}
	command := regexp.MustCompile("(?m)^    (?:.* )?wray ((?:status|start|token|up|down)\\b[^#\n|>]*)|WRAY_FLAGS(?:=| is `)(--[^'`\n]*)")
	found := 0
	for _, m := range command.FindAllStringSubmatch(string(b), -1) {
		args := strings.Fields(m[1])
		if m[2] != "" {
			args = append([]string{"start"}, strings.Fields(m[2])...)
		}
		found++
		if err := accepted(args); err != nil {
			t.Errorf("wray %s: %v", strings.Join(args, " "), err)
		}
	}
	if found < 8 {
		t.Errorf("only %d commands found", found)
	}
}

// TestDeployAutoscale holds the groups of the example to what reads them and to
// the pods that they are of, and the patch of the heads to these.
func TestDeployAutoscale(t *testing.T) {
	dir := filepath.Join(deployDir, "kubernetes")
	b, err := os.ReadFile(filepath.Join(dir, "autoscale", "nodes.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(v any, path ...string) any {
		for _, key := range path {
			switch in := v.(type) {
			case map[string]any:
				v = in[key]
			case []any:
				i, err := strconv.Atoi(key)
				if err != nil || i >= len(in) {
					return nil
				}
				v = in[i]
			default:
				return nil
			}
		}
		return v
	}
	var conf *autoscale.Config
	var workload, account string
	var flags []any
	for _, doc := range documents(t, b) {
		switch at(doc, "kind") {
		case "ConfigMap":
			text, _ := at(doc, "data", "groups.yaml").(string)
			if conf, err = autoscale.Read(strings.NewReader(text)); err != nil {
				t.Fatal(err)
			}
		case "Deployment":
			workload, _ = at(doc, "metadata", "name").(string)
			flags, _ = at(doc, "spec", "template", "spec", "containers", "0", "args").([]any)
		case "ServiceAccount":
			account, _ = at(doc, "metadata", "name").(string)
		case "Role":
			if got := at(doc, "rules", "0", "resourceNames", "0"); got != "wray-scaled" {
				t.Errorf("the role is about %v", got)
			}
		}
	}
	if conf == nil || len(conf.Groups) != 1 {
		t.Fatal("there is no group")
	}
	g := conf.Groups[0]
	if g.Kubernetes.Deployment != workload || !slices.Contains(flags, any("--cpus="+fmt.Sprint(g.CPUs))) || !slices.Contains(flags, any("--labels=wray/group="+g.Name)) {
		t.Errorf("group %+v is not that of deployment %s: %v", g, workload, flags)
	}
	var patch []struct{ Op, Path, Value any }
	if b, err = os.ReadFile(filepath.Join(dir, "autoscale", "heads-patch.json")); err == nil {
		err = json.Unmarshal(b, &patch)
	}
	if err != nil {
		t.Fatal(err)
	}
	if b, err = os.ReadFile(filepath.Join(dir, "heads.yaml")); err != nil {
		t.Fatal(err)
	}
	heads := 0
	for _, doc := range documents(t, b) {
		if at(doc, "kind") != "StatefulSet" {
			continue
		}
		heads++
		for _, op := range patch {
			path := strings.Split(strings.TrimPrefix(op.Path.(string), "/"), "/")
			parent, last := at(doc, path[:len(path)-1]...), path[len(path)-1]
			_, list := parent.([]any)
			if parent == nil || list != (last == "-") || op.Op == "replace" && at(doc, path...) == nil {
				t.Errorf("%v of %v: there is %v", op.Op, op.Path, parent)
			}
			if last == "serviceAccountName" && op.Value != account {
				t.Errorf("the account %v, want %s", op.Value, account)
			}
		}
		args, _ := at(doc, "spec", "template", "spec", "containers", "0", "args").([]any)
		line := []string{patch[len(patch)-1].Value.(string)}
		for _, a := range args {
			line = append([]string{a.(string)}, line...)
		}
		if i := slices.Index(line, "start"); i < 0 || accepted(append([]string{"start"}, slices.Delete(line, i, i+1)...)) != nil {
			t.Errorf("the heads would be called with %v", line)
		}
	}
	if heads != 2 || len(patch) == 0 {
		t.Errorf("%d StatefulSets of heads, %d changes", heads, len(patch))
	}
}
