package peer_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/wray-project/wray/host/auth"
	"github.com/wray-project/wray/host/control"
	"github.com/wray-project/wray/host/peer"
	"github.com/wray-project/wray/internal/rpc"
)

// echoEnv names the state directory of the node that a process of this test is
// to be.
const echoEnv = "WRAY_TEST_ECHO"

func TestMain(m *testing.M) {
	if dir := os.Getenv(echoEnv); dir != "" {
		if err := echoProcess(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// echoProcess is node b, until its input ends.
func echoProcess(dir string) error {
	cred, err := auth.Open(dir)
	if err != nil {
		return err
	}
	store := control.NewMemory(control.MemoryOptions{})
	defer store.Close()
	g, err := auth.NewGuard(context.Background(), cred, store, nil)
	if err != nil {
		return err
	}
	defer g.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	e := &echo{}
	m := peer.NewMesh(peer.Config{}, peer.Node{Name: "b", Incarnation: 1}, peer.NewCarrier(g), e, nil)
	e.mesh = m
	s := rpc.Serve(l, rpc.Options{Guard: g, Session: m.Serve})
	defer s.Close()
	defer m.Close()
	fmt.Println(l.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// BenchmarkProcesses is one message and its answer between two processes, over
// TLS on loopback.
func BenchmarkProcesses(b *testing.B) {
	w := newCluster(b)
	dir := b.TempDir()
	e, err := auth.Enroll(dir, w.reg.Authority.Cluster(), "b")
	if err != nil {
		b.Fatal(err)
	}
	g, err := w.reg.Admit(context.Background(), e.Request)
	if err != nil {
		b.Fatal(err)
	}
	if _, err := e.Finish(g, w.reg.Authority.Trust, time.Now()); err != nil {
		b.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), echoEnv+"="+dir)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	nb := peer.Node{Name: "b", Incarnation: 1}
	s := &sink{}
	m, _ := w.start(peer.Config{}, peer.Node{Name: "a", Incarnation: 1}, s)
	defer m.Close()
	m.Learn(nb, strings.TrimSpace(addr))
	message := make([]byte, 64)
	turn := func() {
		done := s.await(1)
		if err := m.TrySend(nb, message); err != nil {
			b.Fatal(err)
		}
		<-done
	}
	turn()
	for b.Loop() {
		turn()
	}
}
