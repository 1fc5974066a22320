// Package fleet reads the file that lists the hosts of a small cluster, for
// wray up and wray down, and says how each node is started. It starts nothing.
package fleet

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Fleet is a file of hosts.
type Fleet struct {
	// Directory is where wray and what its nodes keep are on each host; relative
	// to the home of the user there.
	Directory string `yaml:"directory"`
	Hosts     []Host `yaml:"hosts"`
}

// Host is a machine with one node.
type Host struct {
	SSH       string            `yaml:"ssh"`     // as the ssh program takes it: a name, USER@NAME, an alias of its configuration
	Name      string            `yaml:"name"`    // of the node
	Address   string            `yaml:"address"` // IP:PORT at which the node listens for others
	Head      bool              `yaml:"head"`
	CPUs      float64           `yaml:"cpus"`      // 0: all
	Resources map[string]string `yaml:"resources"` // name to amount
	Labels    map[string]string `yaml:"labels"`
	Flags     []string          `yaml:"flags"` // further flags of wray start
}

// MaxFile is the most bytes of a file, and MaxHosts the most hosts.
const (
	MaxFile  = 1 << 20
	MaxHosts = 1000
)

// Read reads a file. Fields that it does not know are errors.
func Read(r io.Reader) (*Fleet, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("more than %d bytes", MaxFile)
	}
	f := &Fleet{Directory: ".local/share/wray-node"}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(f); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return f, f.check()
}

func (f *Fleet) check() error {
	switch {
	case len(f.Hosts) == 0:
		return errors.New("there are no hosts")
	case len(f.Hosts) > MaxHosts:
		return fmt.Errorf("%d hosts: %d at most", len(f.Hosts), MaxHosts)
	case f.Directory == "" || strings.ContainsFunc(f.Directory, odd):
		return fmt.Errorf("directory %q: want a path of letters, digits and ./_-", f.Directory)
	}
	seen := map[string]int{}
	for i, h := range f.Hosts {
		wrong := func(format string, args ...any) error {
			return fmt.Errorf("host %d, %q: %s", i+1, h.SSH, fmt.Sprintf(format, args...))
		}
		if h.SSH == "" || strings.HasPrefix(h.SSH, "-") || strings.ContainsAny(h.SSH, " \t\r\n\x00") {
			return wrong("ssh says not where to reach it: want a name, or USER@NAME")
		}
		ip, port, err := net.SplitHostPort(h.Address)
		if n, perr := strconv.Atoi(port); err != nil || perr != nil || n < 1 || n > 65535 || net.ParseIP(ip) == nil {
			return wrong("address %q: want IP:PORT at which other nodes reach this one", h.Address)
		}
		if h.Name == "" || strings.ContainsFunc(h.Name, odd) || strings.Contains(h.Name, "/") {
			return wrong("name %q: want a name of the node", h.Name)
		}
		if h.CPUs < 0 {
			return wrong("cpus: %v", h.CPUs)
		}
		for _, key := range []string{"name " + h.Name, "address " + h.Address} {
			if other, ok := seen[key]; ok {
				return wrong("%s is that of host %d too", key, other+1)
			}
			seen[key] = i
		}
	}
	if !slices.ContainsFunc(f.Hosts, func(h Host) bool { return h.Head }) {
		return errors.New("no host is a head: write head: true for one, or three")
	}
	return nil
}

// odd reports whether a character would mean something to a shell.
func odd(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("./_-", r)
}

// Order returns the hosts in the order in which they are started: heads first,
// as the file has them, since all others join the first.
func (f *Fleet) Order() []Host {
	hosts := slices.Clone(f.Hosts)
	slices.SortStableFunc(hosts, func(a, b Host) int {
		switch {
		case a.Head == b.Head:
			return 0
		case a.Head:
			return -1
		}
		return 1
	})
	return hosts
}

// Flags are those of wray start for a host, but for where it keeps its files.
func (f *Fleet) Flags(h Host) []string {
	args := []string{"--name", h.Name, "--listen", h.Address}
	if h.Head {
		args = append(args, "--head")
	}
	if first := f.Order()[0]; first.Name != h.Name {
		args = append(args, "--address", first.Address)
	}
	if h.CPUs > 0 {
		args = append(args, "--cpus", strconv.FormatFloat(h.CPUs, 'g', -1, 64))
	}
	for _, name := range sorted(h.Resources) {
		args = append(args, "--resource", name+"="+h.Resources[name])
	}
	for _, name := range sorted(h.Labels) {
		args = append(args, "--labels", name+"="+h.Labels[name])
	}
	return append(args, h.Flags...)
}

func sorted(m map[string]string) (keys []string) {
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
