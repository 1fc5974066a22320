// The guest of TestGuest: what an ordinary Go program does with files, clocks
// and descriptors. args[1] says which; it prints "ok" at the end.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"time"
)

func main() {
	todo := map[string]func(){
		"files": files, "dirs": dirs, "links": links, "timers": timers, "events": events, "stdin": stdin,
		"readonly": readonly, "environ": environ, "deadline": deadline, "limit": limit,
		"exit":     func() { os.Exit(7) },
		"panic":    func() { panic("on purpose") },
		"deadlock": func() { select {} },
	}
	f, ok := todo[os.Args[1]]
	if !ok {
		fmt.Fprintln(os.Stderr, "no such test")
		os.Exit(2)
	}
	f()
	fmt.Println("ok")
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func expect(ok bool, format string, args ...any) {
	if !ok {
		panic(fmt.Sprintf(format, args...))
	}
}

func files() {
	check(os.WriteFile("/work/a", []byte("hello, world"), 0o600))
	expect(string(must(os.ReadFile("/work/a"))) == "hello, world", "read back")
	f := must(os.OpenFile("/work/a", os.O_RDWR, 0))
	must(f.WriteAt([]byte("HELLO"), 0))
	must(f.Seek(-5, io.SeekEnd))
	b := make([]byte, 5)
	must(io.ReadFull(f, b))
	expect(string(b) == "world", "read %q", b)
	_, err := f.Read(b)
	expect(err == io.EOF, "at the end: %v", err)
	check(f.Truncate(3))
	check(f.Sync())
	expect(must(f.Stat()).Size() == 3, "size %d", must(f.Stat()).Size())
	check(f.Close())
	_, err = f.Write(b)
	expect(errors.Is(err, os.ErrClosed), "write to a closed file: %v", err)
	f = must(os.OpenFile("/work/a", os.O_APPEND|os.O_WRONLY, 0))
	must(f.WriteString("..."))
	must(f.WriteString("!"))
	_, err = f.Read(b)
	expect(errors.Is(err, syscall.EBADF), "read of a file open for writing: %v", err)
	check(f.Close())
	expect(string(must(os.ReadFile("/work/a"))) == "HEL...!", "content %q", must(os.ReadFile("/work/a")))
	check(os.Truncate("/work/a", 1))
	when := time.Unix(1234567890, 0)
	check(os.Chtimes("/work/a", when, when))
	expect(must(os.Stat("/work/a")).ModTime().Equal(when), "mtime")
	_, err = os.OpenFile("/work/a", os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	expect(errors.Is(err, fs.ErrExist), "create: %v", err)
	_, err = os.Open("/work/none")
	expect(errors.Is(err, fs.ErrNotExist), "open: %v", err)
	big := make([]byte, 9<<20) // more than one call moves
	for i := range big {
		big[i] = byte(i * 7)
	}
	check(os.WriteFile("/work/big", big, 0o600))
	back := must(os.ReadFile("/work/big"))
	expect(string(back) == string(big), "a big file came back with %d bytes", len(back))
	check(os.Rename("/work/big", "/work/big2"))
	check(os.Remove("/work/big2"))
	check(os.Remove("/work/a"))
	_, err = os.Open("../../etc/passwd")
	expect(err != nil, "opened a file of the host")
	_, err = os.Open("/etc/passwd")
	expect(err != nil, "opened a file of the host")
}

func dirs() {
	check(os.MkdirAll("/work/d/e/f", 0o700))
	check(os.Chdir("/work/d"))
	want := []string{"e"}
	for i := range 1000 {
		name := fmt.Sprintf("%s%d", strings.Repeat("long", i%40), i)
		check(os.WriteFile(name, nil, 0o600))
		want = append(want, name)
	}
	sort.Strings(want)
	entries := must(os.ReadDir("."))
	expect(len(entries) == len(want), "%d entries, want %d", len(entries), len(want))
	for i, e := range entries {
		expect(e.Name() == want[i], "entry %d is %s", i, e.Name())
		expect(e.IsDir() == (e.Name() == "e"), "type of %s", e.Name())
	}
	d := must(os.Open("."))
	seen := 0
	for {
		names, err := d.Readdirnames(7)
		seen += len(names)
		if err == io.EOF {
			break
		}
		check(err)
	}
	expect(seen == 1001, "%d names", seen)
	must(d.Seek(0, io.SeekStart))
	expect(len(must(d.Readdirnames(-1))) == 1001, "after rewinding")
	_, err := d.Read(make([]byte, 1))
	expect(errors.Is(err, syscall.EISDIR), "read of a directory: %v", err)
	check(d.Close())
	err = os.Remove("e")
	expect(errors.Is(err, syscall.ENOTEMPTY), "remove of a full directory: %v", err)
	check(os.Chdir("/work"))
	check(os.RemoveAll("/work/d"))
	_, err = os.Stat("/work/d")
	expect(errors.Is(err, fs.ErrNotExist), "after RemoveAll: %v", err)
}

func links() {
	check(os.WriteFile("/work/t", []byte("target"), 0o600))
	check(os.Symlink("t", "/work/l"))
	expect(must(os.Readlink("/work/l")) == "t", "readlink")
	expect(string(must(os.ReadFile("/work/l"))) == "target", "by the link")
	expect(must(os.Lstat("/work/l")).Mode()&fs.ModeSymlink != 0, "lstat")
	check(os.Link("/work/t", "/work/h"))
	expect(os.SameFile(must(os.Stat("/work/h")), must(os.Stat("/work/t"))), "hard link")
	expect(os.Symlink("/etc/passwd", "/work/p") != nil, "made an absolute link")
	expect(os.Symlink("../../etc/passwd", "/work/p") != nil, "made a link that leads out")
	r := must(os.OpenRoot("/work"))
	f := must(r.Create("in-root"))
	check(f.Close())
	_, err := r.Open("../etc/passwd")
	expect(err != nil, "os.Root let it out")
	check(r.Close())
}

func timers() {
	start := time.Now()
	var wg sync.WaitGroup
	var mu sync.Mutex
	var order []int
	for i := 5; i > 0; i-- {
		wg.Add(1)
		go func() {
			defer wg.Done()
			time.Sleep(time.Duration(i) * 20 * time.Millisecond)
			mu.Lock()
			order = append(order, i)
			mu.Unlock()
		}()
	}
	wg.Wait()
	expect(fmt.Sprint(order) == "[1 2 3 4 5]", "order %v", order)
	took := time.Since(start)
	expect(took >= 100*time.Millisecond, "slept %v", took)
	tick := time.NewTicker(5 * time.Millisecond)
	for range 3 {
		<-tick.C
	}
	tick.Stop()
	select {
	case <-time.After(10 * time.Millisecond):
	case <-time.After(time.Hour):
		expect(false, "the wrong timer")
	}
}

// events reads descriptor number 4, which the host made, while other
// goroutines go on.
func events() {
	f := os.NewFile(4, "events")
	done := make(chan int)
	go func() {
		n := 0
		for range time.Tick(time.Millisecond) {
			if n++; n == 5 {
				done <- n
				return
			}
		}
	}()
	for i := range 100 {
		b := make([]byte, 16)
		n, err := f.Read(b)
		expect(err == nil && n == 8, "read %d, %v", n, err)
		expect(string(b[:n]) == fmt.Sprintf("event%03d", i), "event %d is %q", i, b[:n])
	}
	<-done
}

func deadline() {
	f := os.NewFile(4, "events")
	check(f.SetReadDeadline(time.Now().Add(20 * time.Millisecond)))
	_, err := f.Read(make([]byte, 1))
	expect(errors.Is(err, os.ErrDeadlineExceeded), "read: %v", err)
}

func stdin() {
	s := bufio.NewScanner(os.Stdin)
	n := 0
	for s.Scan() {
		n++
	}
	check(s.Err())
	fmt.Println(n, "lines")
	fi := must(os.Stdin.Stat())
	expect(fi.Mode()&fs.ModeCharDevice == 0, "stdin is a terminal")
}

func readonly() {
	expect(string(must(os.ReadFile("/ro/f"))) == "f", "read")
	for what, err := range map[string]error{
		"create": func() error { _, err := os.Create("/ro/new"); return err }(),
		"write":  func() error { _, err := os.OpenFile("/ro/f", os.O_WRONLY, 0); return err }(),
		"cut":    os.Truncate("/ro/f", 0),
		"mkdir":  os.Mkdir("/ro/d", 0o700),
		"remove": os.Remove("/ro/f"),
		"rename": os.Rename("/ro/f", "/ro/g"),
		"out":    os.Rename("/ro/f", "/work/g"),
		"link":   os.Link("/ro/f", "/ro/g"),
		"sym":    os.Symlink("f", "/ro/g"),
		"times":  os.Chtimes("/ro/f", time.Now(), time.Now()),
	} {
		expect(errors.Is(err, syscall.EROFS), "%s: %v", what, err)
	}
}

func environ() {
	expect(os.Getenv("KEY") == "value", "KEY is %q", os.Getenv("KEY"))
	expect(len(os.Environ()) == 2, "environment %q", os.Environ())
	expect(len(os.Args) == 4 && os.Args[2] == "two words" && os.Args[3] == "", "args %q", os.Args)
}

func limit() {
	var open []*os.File
	for {
		f, err := os.Open("/work")
		if err != nil {
			expect(errors.Is(err, syscall.EMFILE), "open: %v", err)
			break
		}
		open = append(open, f)
	}
	fmt.Println(len(open), "open")
	for _, f := range open {
		f.Close()
	}
}
