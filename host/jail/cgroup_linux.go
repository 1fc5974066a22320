package jail

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup means that this process may not make control groups. The jail
// holds without them; memory is then bounded by the sandbox's own accounting.
var ErrNoCgroup = errors.New("no control group can be made")

// Cgroup is a control group made for one child, of cgroup v1 or v2.
type Cgroup struct {
	version int
	memory  string // directory that takes the memory limit
	cpu     string // directory that takes the weight; on v2 the same
	bounded bool   // CPUMax was set
}

// cgroupParents is where groups can be made: one directory for v2, one for each
// controller for v1. A controller that is missing is empty.
type cgroupParents struct {
	version     int
	memory, cpu string
}

// NewCgroup makes a group under this process's own, or beside it. The error
// wraps ErrNoCgroup where that is not permitted. name must be unique among the
// groups of this process.
func NewCgroup(name string, l CgroupLimits) (*Cgroup, error) {
	parents, err := findCgroups()
	if err != nil {
		return nil, err
	}
	sweepOnce.Do(func() { sweep(parents, time.Now().Add(-sweepAge)) })
	return parents.make(name, l)
}

// make is NewCgroup in parents.
func (p *cgroupParents) make(name string, l CgroupLimits) (*Cgroup, error) {
	name = fmt.Sprintf("wray-%d-%s", os.Getpid(), name)
	c := &Cgroup{version: p.version}
	var err error
	made := func(parent string) (dir string) {
		if parent == "" || err != nil {
			return ""
		}
		if dir, err = makeGroup(filepath.Join(parent, name)); err != nil {
			err = fmt.Errorf("%w: %w", ErrNoCgroup, err)
			return ""
		}
		return dir
	}
	c.memory = made(p.memory)
	if c.cpu = c.memory; p.cpu != p.memory {
		c.cpu = made(p.cpu)
	}
	if err == nil {
		err = c.Set(l)
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// makeGroup makes a directory that nobody has set a limit in, and returns its
// name. One that is there was left by a process that had this one's number, with
// its limits, and perhaps with somebody in it: then another name is taken.
func makeGroup(dir string) (string, error) {
	name := dir
	for i := 2; ; i++ {
		err := os.Mkdir(name, 0o755)
		if errors.Is(err, os.ErrExist) && os.Remove(name) == nil {
			err = os.Mkdir(name, 0o755)
		}
		if !errors.Is(err, os.ErrExist) || i > 16 {
			return name, err
		}
		name = fmt.Sprintf("%s-%d", dir, i)
	}
}

// sweepAge is how old groups are that are removed because nobody has them: a
// process that another namespace has numbered makes one and then enters it.
const sweepAge = time.Minute

var sweepOnce sync.Once

// sweep removes groups of processes that are gone, older than before: those that
// were killed could not. The kernel keeps those in which a process is.
func sweep(p cgroupParents, before time.Time) {
	for _, parent := range (&Cgroup{memory: p.memory, cpu: p.cpu}).dirs() {
		entries, err := os.ReadDir(parent)
		if err != nil {
			continue
		}
		for _, e := range entries {
			rest, ours := strings.CutPrefix(e.Name(), "wray-")
			number, _, named := strings.Cut(rest, "-")
			pid, err := strconv.Atoi(number)
			if !ours || !named || err != nil || pid <= 0 || !e.IsDir() || !gone(pid) {
				continue
			}
			if info, err := e.Info(); err == nil && info.ModTime().Before(before) {
				_ = os.Remove(filepath.Join(parent, e.Name())) // there is a process in it
			}
		}
	}
}

// gone reports whether there is no process of that number.
func gone(pid int) bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }

// CgroupSupport says whether control groups can be made, and where.
func CgroupSupport() (version int, detail string, err error) {
	p, err := findCgroups()
	if err != nil {
		return 0, "", err
	}
	name := fmt.Sprintf("wray-%d-probe", os.Getpid())
	for _, parent := range []string{p.memory, p.cpu} {
		if parent == "" {
			continue
		}
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return 0, "", fmt.Errorf("%w: %w", ErrNoCgroup, err)
		}
		os.Remove(dir)
	}
	detail = "memory in " + orMissing(p.memory) + ", cpu in " + orMissing(p.cpu)
	return p.version, detail, nil
}

func orMissing(dir string) string {
	if dir == "" {
		return "(not available)"
	}
	return dir
}

// Set changes the limits.
func (c *Cgroup) Set(l CgroupLimits) error {
	write := func(dir, file, value string) error {
		if dir == "" {
			return nil
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(value), 0o644); err != nil {
			return fmt.Errorf("limiting a control group: %w", err)
		}
		return nil
	}
	var errs []error
	if l.Memory > 0 {
		file := "memory.max"
		if c.version == 1 {
			file = "memory.limit_in_bytes"
		}
		errs = append(errs, write(c.memory, file, strconv.FormatInt(l.Memory, 10)))
	}
	if w := min(l.CPUWeight, 10_000); w > 0 {
		if c.version == 1 {
			// v1 counts in shares of 1024, v2 in weights of 100.
			errs = append(errs, write(c.cpu, "cpu.shares", strconv.Itoa(max(2, w*1024/100))))
		} else {
			errs = append(errs, write(c.cpu, "cpu.weight", strconv.Itoa(w)))
		}
	}
	if l.CPUMax > 0 || c.bounded {
		errs = append(errs, c.setCPUMax(l.CPUMax, write))
	}
	return errors.Join(errs...)
}

// cpuPeriod is the time in which a bound of processor time holds, in
// microseconds.
const cpuPeriod = 100_000

func (c *Cgroup) setCPUMax(thousandths int, write func(dir, file, value string) error) error {
	c.bounded = thousandths > 0
	quota := strconv.Itoa(max(1000, thousandths*cpuPeriod/1000)) // the kernel takes no less
	if c.version == 1 {
		if !c.bounded {
			quota = "-1"
		}
		return errors.Join(write(c.cpu, "cpu.cfs_period_us", strconv.Itoa(cpuPeriod)), write(c.cpu, "cpu.cfs_quota_us", quota))
	}
	if !c.bounded {
		quota = "max"
	}
	return write(c.cpu, "cpu.max", quota+" "+strconv.Itoa(cpuPeriod))
}

// SharesCPU reports whether the kernel shares processors by the group's weight.
func (c *Cgroup) SharesCPU() bool { return c.cpu != "" }

// OOMKills is how often the kernel has killed a process of the group because it
// had all its memory; 0 where the kernel does not tell.
func (c *Cgroup) OOMKills() int {
	if c.memory == "" {
		return 0
	}
	file := "memory.events"
	if c.version == 1 {
		file = "memory.oom_control"
	}
	b, err := os.ReadFile(filepath.Join(c.memory, file))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if text, ok := strings.CutPrefix(line, "oom_kill "); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(text)) // 0 where it is no number
			return n
		}
	}
	return 0
}

// add moves a process into the group.
func (c *Cgroup) add(pid int) error {
	for _, dir := range c.dirs() {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(strconv.Itoa(pid)), 0o644); err != nil {
			return fmt.Errorf("joining a control group: %w", err)
		}
	}
	return nil
}

func (c *Cgroup) dirs() (dirs []string) {
	for _, d := range []string{c.memory, c.cpu} {
		if d != "" && !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// String names the group.
func (c *Cgroup) String() string {
	return fmt.Sprintf("cgroup v%d %s", c.version, strings.Join(c.dirs(), " "))
}

// Close removes the group. Its processes must have ended.
func (c *Cgroup) Close() error {
	var errs []error
	for _, dir := range c.dirs() {
		if err := os.Remove(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, fmt.Errorf("removing a control group: %w", err))
		}
	}
	return errors.Join(errs...)
}

// findCgroups finds directories in which this process may make groups.
func findCgroups() (cgroupParents, error) {
	own, err := ownCgroups()
	if err != nil {
		return cgroupParents{}, fmt.Errorf("%w: %w", ErrNoCgroup, err)
	}
	writable := func(dir string) bool { return dir != "" && unix.Access(dir, unix.W_OK) == nil }
	p := cgroupParents{version: 1}
	if dir := own["memory"]; writable(dir) {
		p.memory = dir
	}
	if dir := own["cpu"]; writable(dir) {
		p.cpu = dir
	}
	if p.memory != "" || p.cpu != "" {
		return p, nil
	}
	// v2: a group with processes cannot hand controllers down, so the group to
	// use is this process's own only if it is the root, else the one above.
	if dir := own[""]; dir != "" {
		for _, d := range []string{dir, filepath.Dir(dir)} {
			b, err := os.ReadFile(filepath.Join(d, "cgroup.subtree_control"))
			if err != nil || !writable(d) {
				continue
			}
			controllers := strings.Fields(string(b))
			p := cgroupParents{version: 2}
			if slices.Contains(controllers, "memory") {
				p.memory = d
			}
			if slices.Contains(controllers, "cpu") {
				p.cpu = d
			}
			if p.memory != "" || p.cpu != "" {
				return p, nil
			}
		}
	}
	return cgroupParents{}, fmt.Errorf("%w: none of this process's groups is writable and has the memory or cpu controller", ErrNoCgroup)
}

// ownCgroups returns the directory of this process's group for each controller
// of v1, and for v2 under the empty name (cgroups(7)).
func ownCgroups() (map[string]string, error) {
	mounts, err := cgroupMounts()
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, err
	}
	own := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			m, ok := mounts[c]
			if !ok {
				continue
			}
			if rest, ok := strings.CutPrefix(f[2], strings.TrimSuffix(m.root, "/")); ok {
				own[c] = filepath.Join(m.point, rest)
			}
		}
	}
	return own, nil
}

type cgroupMount struct{ root, point string }

// cgroupMounts reads /proc/self/mountinfo (proc_pid_mountinfo(5)).
func cgroupMounts() (map[string]cgroupMount, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	mounts := map[string]cgroupMount{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		before, after, ok := strings.Cut(s.Text(), " - ")
		pre, post := strings.Fields(before), strings.Fields(after)
		if !ok || len(pre) < 5 || len(post) < 3 {
			continue
		}
		m := cgroupMount{root: pre[3], point: pre[4]}
		switch post[0] {
		case "cgroup2":
			mounts[""] = m
		case "cgroup":
			for opt := range strings.SplitSeq(post[2], ",") {
				mounts[opt] = m
			}
		}
	}
	return mounts, s.Err()
}
