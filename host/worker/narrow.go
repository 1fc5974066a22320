package worker

import (
	"os"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/wasm/abi"
)

// A task may be given fewer grants than its job has. What it submits has no more
// than it has itself: else it would submit a task in its place. Such a task stays
// on the node of its job, where all grants are, and so does what it submits. That
// is kept here, in the worker: it is between tasks of one job. What the job has the
// node keeps to.

// narrowing is what a task is granted of what outer has, or of what its job has
// where that is nil. It is never changed.
type narrowing struct {
	grants *wray.Grants
	outer  *narrowing
}

// egress reports whether a server may be asked, by all that narrows. A nil
// narrowing takes nothing away.
func (n *narrowing) egress(host string, port int) bool {
	for ; n != nil; n = n.outer {
		if !wray.EgressAllowed(n.grants.Egress, host, port) {
			return false
		}
	}
	return true
}

// dir reports whether a granted directory may be used, and for reading alone.
func (n *narrowing) dir(guest string) (ok, readOnly bool) {
	for ; n != nil; n = n.outer {
		have, ro := n.grants.Dir(guest)
		if !have {
			return false, false
		}
		readOnly = readOnly || ro
	}
	return true, readOnly
}

// narrowed is what narrows the guest: what its task, or the actor that it is, was
// given, and who submitted that.
func (g *guest) narrowed() *narrowing {
	if g.holder == nil {
		return nil // the driver
	}
	return g.holder.only
}

// readGrants reads what a task, or an actor, is given of what g has; nil: all of
// it. durable says that it is a durable actor, which outlives what narrows it.
func (g *guest) readGrants(v view, p, n uint32, t *task) abi.Errno {
	t.only = g.narrowed()
	if n > 0 {
		if n > wray.MaxGrantsText {
			return g.tooMany("bytes of grants", n, wray.MaxGrantsText)
		}
		b, ok := v.bytes(p, n)
		if !ok {
			return abi.EFAULT
		}
		g.copied(int(n))
		g.looked(wray.MaxGrants)
		grants, err := wray.ParseGrants(string(b))
		if err != nil {
			return abi.EINVAL
		}
		t.only = &narrowing{grants, t.only}
	}
	if t.only == nil {
		return abi.Success
	}
	switch {
	case t.makes != nil && t.makes.durable:
		return g.refuse(&wray.Error{Code: wray.CodeDenied, Message: "a durable actor cannot be given fewer grants than its job has, nor be made by a task that was",
			Hint: "make it in the driver, without Grants: it outlives the job that would have narrowed it"}, abi.EPERM)
	case g.durable != nil:
		return g.refuse(&wray.Error{Code: wray.CodeDenied, Message: "a durable actor cannot submit a task with fewer grants",
			Hint: "have the driver submit it, or leave Grants out"}, abi.EPERM)
	case t.makes != nil && g.job.mirror != nil:
		return g.notHere("an actor with fewer grants was made")
	case t.makes == nil:
		t.flags |= abi.SpecFresh // nothing that another task has opened is open
	}
	return abi.Success
}

// narrowFS is a granted directory as the guest's task has it now.
type narrowFS struct {
	wasi.FS
	g     *guest
	guest string
}

// may is why the guest's task may not use the directory, for reading or writing.
func (f *narrowFS) may(write bool) wasi.Errno {
	n := f.g.narrowed()
	if n == nil {
		return wasi.Success
	}
	switch ok, readOnly := n.dir(f.guest); {
	case !ok:
		return wasi.EACCES
	case write && readOnly:
		return wasi.EROFS
	}
	return wasi.Success
}

func (f *narrowFS) Open(path string, flags wasi.OpenFlags) (*os.File, wasi.Errno) {
	if e := f.may(flags.Writes()); e != wasi.Success {
		return nil, e
	}
	return f.FS.Open(path, flags)
}

func (f *narrowFS) Stat(path string, follow bool) (wasi.Filestat, wasi.Errno) {
	if e := f.may(false); e != wasi.Success {
		return wasi.Filestat{}, e
	}
	return f.FS.Stat(path, follow)
}

func (f *narrowFS) Readlink(path string) (string, wasi.Errno) {
	if e := f.may(false); e != wasi.Success {
		return "", e
	}
	return f.FS.Readlink(path)
}

// change does what changes something, where the task may.
func (f *narrowFS) change(do func() wasi.Errno) wasi.Errno {
	if e := f.may(true); e != wasi.Success {
		return e
	}
	return do()
}

func (f *narrowFS) SetTimes(path string, t wasi.Times, follow bool) wasi.Errno {
	return f.change(func() wasi.Errno { return f.FS.SetTimes(path, t, follow) })
}

func (f *narrowFS) Mkdir(path string) wasi.Errno {
	return f.change(func() wasi.Errno { return f.FS.Mkdir(path) })
}

func (f *narrowFS) Unlink(path string) wasi.Errno {
	return f.change(func() wasi.Errno { return f.FS.Unlink(path) })
}

func (f *narrowFS) Rmdir(path string) wasi.Errno {
	return f.change(func() wasi.Errno { return f.FS.Rmdir(path) })
}

func (f *narrowFS) Rename(from, to string) wasi.Errno {
	return f.change(func() wasi.Errno { return f.FS.Rename(from, to) })
}

func (f *narrowFS) Link(from, to string) wasi.Errno {
	return f.change(func() wasi.Errno { return f.FS.Link(from, to) })
}

func (f *narrowFS) Symlink(target, path string) wasi.Errno {
	return f.change(func() wasi.Errno { return f.FS.Symlink(target, path) })
}
