package jail

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// directories are a place for groups on a disk, where limits are files.
func directories(t *testing.T) cgroupParents {
	dir := t.TempDir()
	return cgroupParents{version: 2, memory: dir, cpu: dir}
}

// A group that is there already, with limits of who had this process's number, is
// not taken as it is.
func TestCgroupLeftByAnother(t *testing.T) {
	p := directories(t)
	dir := filepath.Join(p.memory, fmt.Sprintf("wray-%d-worker-1", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	left, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	// Who is in the group keeps the kernel from removing it, as a file does here.
	inside := filepath.Join(dir, "cgroup.procs")
	if err := os.WriteFile(inside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	other, err := p.make("worker-1", CgroupLimits{})
	if err != nil {
		t.Fatal(err)
	}
	if other.memory != dir+"-2" {
		t.Errorf("%v was taken, and %s has somebody in it", other, dir)
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := os.Remove(inside); err != nil {
		t.Fatal(err)
	}
	c, err := p.make("worker-1", CgroupLimits{})
	if err != nil {
		t.Fatal(err)
	}
	made, err := os.Stat(dir)
	if err != nil {
		t.Fatal(err)
	}
	if made.ModTime().Equal(left.ModTime()) {
		t.Error("the group is the one that was left")
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}

// What is left of processes that are gone goes; what others have, or is not
// wray's, stays.
func TestCgroupSweep(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	dead := cmd.Process.Pid
	if !gone(dead) {
		t.Fatalf("number %d is another process's already: run it again", dead)
	}
	p := directories(t)
	goes := fmt.Sprintf("wray-%d-worker-3", dead)
	stays := []string{fmt.Sprintf("wray-%d-worker-1", os.Getpid()), fmt.Sprintf("other-%d-worker-1", dead), fmt.Sprintf("wray-%d", dead), "wray-x-worker-1", "wray--1-worker-1"}
	for _, name := range append(stays, goes) {
		if err := os.Mkdir(filepath.Join(p.memory, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	sweep(p, time.Now().Add(-sweepAge))
	if _, err := os.Stat(filepath.Join(p.memory, goes)); err != nil {
		t.Errorf("one that was made a moment ago: %v", err)
	}
	sweep(p, time.Now().Add(time.Hour))
	if _, err := os.Stat(filepath.Join(p.memory, goes)); err == nil {
		t.Error("what a dead process has left is still there")
	}
	for _, name := range stays {
		if _, err := os.Stat(filepath.Join(p.memory, name)); err != nil {
			t.Error(err)
		}
	}
}
