package chaos

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// network is hosts that reach each other over a switch. Each host is a network
// namespace, and so is the switch; a host's cable is a veth pair.
type network struct {
	t     testing.TB
	ns    string // of the switch
	hosts int
}

// host is a machine, as far as its network goes.
type host struct {
	net  *network
	ns   string
	port string // of the switch, at which its cable ends
	addr string
}

// namePrefix begins the names of all namespaces, with the process that made them.
const namePrefix = "wray-chaos-"

var networks int // made by this process

// newNetwork makes one, which ends with the test, or skips the test where that is
// not permitted.
func newNetwork(t testing.TB) *network {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("SKIP: hosts are network namespaces, which only root makes")
	}
	if _, err := exec.LookPath("ip"); err != nil {
		t.Skip("SKIP: hosts are made by ip, of iproute2, which is not installed")
	}
	sweep()
	networks++
	n := &network{t: t, ns: fmt.Sprintf("%s%d-%d", namePrefix, os.Getpid(), networks)}
	if out, err := exec.Command("ip", "netns", "add", n.ns).CombinedOutput(); err != nil {
		t.Skipf("SKIP: this machine lets nobody make network namespaces: %v: %s", err, out)
	}
	t.Cleanup(func() { n.ip("netns", "del", n.ns) })
	n.ip("-n", n.ns, "link", "add", "switch", "type", "bridge")
	n.ip("-n", n.ns, "link", "set", "switch", "up")
	return n
}

// sweep takes away what a test has left that was killed.
func sweep() {
	left, _ := filepath.Glob("/run/netns/" + namePrefix + "*")
	for _, path := range left {
		pid, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(path), namePrefix), "-")
		if n, err := strconv.Atoi(pid); err == nil && syscall.Kill(n, 0) == syscall.ESRCH {
			_ = exec.Command("ip", "netns", "del", filepath.Base(path)).Run()
		}
	}
}

// ip runs ip. What it refuses is the test's failure.
func (n *network) ip(args ...string) {
	n.t.Helper()
	if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
		n.t.Fatalf("ip %s: %v: %s", strings.Join(args, " "), err, out)
	}
}

// host adds one.
func (n *network) host() *host {
	n.t.Helper()
	n.hosts++
	h := &host{net: n, ns: fmt.Sprintf("%s-%d", n.ns, n.hosts), port: fmt.Sprintf("port%d", n.hosts), addr: fmt.Sprintf("10.99.0.%d", n.hosts)}
	n.ip("netns", "add", h.ns)
	n.t.Cleanup(func() { n.ip("netns", "del", h.ns) })
	n.ip("-n", h.ns, "link", "add", "eth0", "type", "veth", "peer", "name", h.port, "netns", n.ns)
	n.ip("-n", h.ns, "addr", "add", h.addr+"/24", "dev", "eth0")
	for _, l := range []string{"lo", "eth0"} {
		n.ip("-n", h.ns, "link", "set", l, "up")
	}
	n.ip("-n", n.ns, "link", "set", h.port, "master", "switch", "up")
	return h
}

// unplug pulls the host's cable, and returns what puts it back.
func (h *host) unplug() (plug func()) {
	h.net.ip("-n", h.net.ns, "link", "set", h.port, "down")
	return func() { h.net.ip("-n", h.net.ns, "link", "set", h.port, "up") }
}

// mute drops what the host sends to another, which it hears yet, and returns what
// ends that.
func (h *host) mute(to *host) (unmute func()) {
	h.net.ip("-n", h.ns, "route", "add", "blackhole", to.addr+"/32")
	return func() { h.net.ip("-n", h.ns, "route", "del", "blackhole", to.addr+"/32") }
}

// command is a command on the host. It is the process itself, and no child's
// parent.
func (h *host) command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + h.ns, name}, args...)...)
}

// sent is how many bytes have left the host.
func (h *host) sent() int64 {
	h.net.t.Helper()
	out, err := h.command("cat", "/proc/net/dev").Output()
	if err != nil {
		h.net.t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "eth0:"); ok {
			n, err := strconv.ParseInt(strings.Fields(rest)[8], 10, 64)
			if err != nil {
				h.net.t.Fatal(err)
			}
			return n
		}
	}
	h.net.t.Fatalf("eth0 is not in:\n%s", out)
	return 0
}
