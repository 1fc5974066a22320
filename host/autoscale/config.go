package autoscale

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/autoscale/plan"
	"github.com/wray-project/wray/host/cluster"
)

// Config is the file that says which groups of nodes there are.
type Config struct {
	Groups []Group `yaml:"groups"`
}

// Group is nodes that are alike. Times are as Go writes them, such as 90s or 5m.
type Group struct {
	Name     string `yaml:"name"`     // also the value of the label wray/group, and what names of local nodes begin with
	Provider string `yaml:"provider"` // local or kubernetes
	Min      int    `yaml:"min"`
	Max      int    `yaml:"max"`

	CPUs      float64           `yaml:"cpus"` // of one node
	Memory    Size              `yaml:"memory"`
	Resources map[string]string `yaml:"resources"` // name to amount
	Labels    map[string]string `yaml:"labels"`

	Idle     Span `yaml:"idle"`     // how long a node does nothing before it is drained; default 5m
	Settle   Span `yaml:"settle"`   // how long there is no room for tasks before a node is started; default 2s
	Join     Span `yaml:"join"`     // how long a node may take to join; default 5m
	Starting int  `yaml:"starting"` // most that start at one time; default 10

	// Flags are further flags of wray start, of local nodes.
	Flags []string `yaml:"flags"`
	// Kubernetes says which workload the nodes are the pods of.
	Kubernetes Workload `yaml:"kubernetes"`
}

// Workload is a StatefulSet or a Deployment.
type Workload struct {
	Namespace   string `yaml:"namespace"` // default that of this pod
	StatefulSet string `yaml:"statefulset"`
	Deployment  string `yaml:"deployment"`
}

// The providers.
const (
	Local      = "local"
	Kubernetes = "kubernetes"
)

// Bounds of a file.
const (
	MaxFile   = 1 << 20 // bytes
	MaxGroups = 64
	MaxNodes  = 10_000 // of one group
)

// Span is a time that is not negative.
type Span struct {
	D   time.Duration
	Set bool
}

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Span) UnmarshalYAML(n *yaml.Node) error {
	d, err := time.ParseDuration(n.Value)
	if err != nil || d < 0 || d > 1000*time.Hour {
		return fmt.Errorf("line %d: %q is not a time: write 90s or 5m", n.Line, n.Value)
	}
	*s = Span{d, true}
	return nil
}

// Size is bytes, written as 512MiB, 4GiB or a number of bytes.
type Size int64

// UnmarshalYAML implements yaml.Unmarshaler.
func (s *Size) UnmarshalYAML(n *yaml.Node) error {
	text, unit := n.Value, int64(1)
	for i, u := range []string{"Ki", "Mi", "Gi", "Ti"} { // as Kubernetes writes them, too
		if t, ok := strings.CutSuffix(strings.TrimSuffix(text, "B"), u); ok {
			text, unit = t, 1<<(10*(i+1))
			break
		}
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !(x >= 0) || x*float64(unit) > 1<<60 {
		return fmt.Errorf("line %d: %q is not a number of bytes: write 512MiB or 4GiB", n.Line, n.Value)
	}
	*s = Size(x * float64(unit))
	return nil
}

// Read reads a file. Fields that it does not know are errors.
func Read(r io.Reader) (*Config, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("more than %d bytes", MaxFile)
	}
	c := &Config{}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(c); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return c, c.check()
}

func (c *Config) check() error {
	if len(c.Groups) == 0 || len(c.Groups) > MaxGroups {
		return fmt.Errorf("%d groups: want from 1 to %d", len(c.Groups), MaxGroups)
	}
	workloads := map[Workload]string{}
	for i := range c.Groups {
		g := &c.Groups[i]
		if err := g.check(); err != nil {
			return fmt.Errorf("group %d, %q: %w", i+1, g.Name, err)
		}
		if slices.ContainsFunc(c.Groups[:i], func(o Group) bool { return o.Name == g.Name }) {
			return fmt.Errorf("group %d: there is one of the name %q before it", i+1, g.Name)
		}
		if other, ok := workloads[g.Kubernetes]; ok && g.Provider == Kubernetes {
			return fmt.Errorf("group %d, %q: its workload is that of group %q", i+1, g.Name, other)
		}
		workloads[g.Kubernetes] = g.Name
	}
	return nil
}

func (g *Group) check() error {
	if err := cluster.CheckName(g.Name); err != nil {
		return fmt.Errorf("name: %w", err)
	}
	if len(g.Name) > 40 {
		return errors.New("name: 40 characters at most, since names of nodes begin with it")
	}
	set := g.Kubernetes.StatefulSet != "" || g.Kubernetes.Deployment != ""
	switch {
	case g.Provider != Local && g.Provider != Kubernetes:
		return fmt.Errorf("provider %q: want %s or %s", g.Provider, Local, Kubernetes)
	case g.Max < 1 || g.Max > MaxNodes:
		return fmt.Errorf("max: %d: want from 1 to %d", g.Max, MaxNodes)
	case g.Min < 0 || g.Min > g.Max:
		return fmt.Errorf("min: %d: want from 0 to max, %d", g.Min, g.Max)
	case !(g.CPUs >= 0.0001 && g.CPUs <= 1e6):
		return fmt.Errorf("cpus: %v: say how many cores a node of the group has", g.CPUs)
	case g.Idle.Set && g.Idle.D < time.Second:
		return fmt.Errorf("idle: %v: nodes say once a second what they do, so want 1s at least", g.Idle.D)
	case g.Starting < 0:
		return fmt.Errorf("starting: %d", g.Starting)
	case g.Provider == Local && g.Memory != 0:
		return errors.New("memory: a local node has that of this machine: leave it out")
	case g.Provider == Local && (set || g.Kubernetes.Namespace != ""):
		return errors.New("kubernetes: the provider is local")
	case g.Provider == Kubernetes && len(g.Flags) > 0:
		return errors.New("flags: those of a pod are in its manifest")
	case g.Provider == Kubernetes && (g.Kubernetes.StatefulSet == "") == (g.Kubernetes.Deployment == ""):
		return errors.New("kubernetes: name a statefulset, or a deployment")
	}
	p, err := g.Plan(0)
	if err != nil {
		return err
	}
	if len(p.Labels)+3 > wray.MaxLabels {
		return fmt.Errorf("labels: %d at most", wray.MaxLabels-4)
	}
	for _, f := range g.Flags {
		name, _, _ := strings.Cut(f, "=")
		if slices.Contains([]string{"--head", "--address", "--token", "--name", "--cluster-dir", "--socket", "--labels", "--resource", "--cpus", "--alone", "--autoscale"}, name) {
			return fmt.Errorf("flags: %s is set for each node", name)
		}
	}
	return nil
}

// Plan is what is decided by. memory is what a node has where the group does not
// say.
func (g *Group) Plan(memory int64) (plan.Group, error) {
	or := func(s Span, d time.Duration) time.Duration {
		if s.Set {
			return s.D
		}
		return d
	}
	p := plan.Group{Name: g.Name, Min: g.Min, Max: g.Max, Capacity: wray.Resources{CPU: wray.CPUs(g.CPUs), Memory: int64(g.Memory)},
		Idle: or(g.Idle, 5*time.Minute), Settle: or(g.Settle, 2*time.Second), Patience: or(g.Join, 5*time.Minute), Starting: g.Starting,
		Ordered: g.Kubernetes.StatefulSet != ""}
	if p.Capacity.Memory == 0 && g.Provider == Local {
		p.Capacity.Memory = memory
	}
	if p.Starting == 0 {
		p.Starting = 10
	}
	for _, name := range slices.Sorted(keys(g.Resources)) {
		a, err := wray.ParseAmount(g.Resources[name])
		if err == nil {
			p.Custom, err = wray.SetCustom(p.Custom, wray.Custom{Name: name, Amount: a})
		}
		if err != nil {
			return p, fmt.Errorf("resources: %w", err)
		}
	}
	if len(p.Custom) > wray.MaxCustom {
		return p, fmt.Errorf("resources: %d at most", wray.MaxCustom)
	}
	for _, key := range slices.Sorted(keys(g.Labels)) {
		l := wray.Label{Key: key, Value: g.Labels[key]}
		if err := l.Check(); err != nil {
			return p, fmt.Errorf("labels: %w", err)
		}
		if strings.HasPrefix(key, wray.LabelPrefix) {
			return p, fmt.Errorf("labels: those that begin with %s are the node's own", wray.LabelPrefix)
		}
		p.Labels = append(p.Labels, l)
	}
	p.Labels = append(p.Labels, wray.Label{Key: wray.LabelGroup, Value: g.Name})
	p.Labels = wray.NodeLabels("", p.Labels)
	return p, nil
}

func keys(m map[string]string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}
