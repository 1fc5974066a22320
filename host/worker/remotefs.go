package worker

import (
	"context"
	"os"

	"github.com/wray-project/wray/host/link"
	"github.com/wray-project/wray/host/wasi"
)

// remoteFS is a granted directory whose files the node opens: the worker
// itself may open nothing.
type remoteFS struct {
	ctx  context.Context // the job's
	conn *link.Conn
	run  uint64
	dir  int
}

// call asks the node. The file, if any, is the caller's.
func (r *remoteFS) call(b FSBody) (FSReply, *os.File, wasi.Errno) {
	b.Run, b.Dir = r.run, r.dir
	body, err := link.Marshal(b)
	if err != nil {
		return FSReply{}, nil, wasi.EINVAL
	}
	m, err := r.conn.Call(r.ctx, link.Message{Kind: KindFS, Body: body})
	if err != nil {
		return FSReply{}, nil, wasi.EIO
	}
	var reply FSReply
	if err := link.Unmarshal(m.Body, &reply); err != nil || len(m.Files) > 1 {
		m.CloseFiles()
		return FSReply{}, nil, wasi.EIO
	}
	var f *os.File
	if len(m.Files) == 1 {
		f = m.Files[0]
	}
	return reply, f, wasi.Errno(reply.Errno)
}

func (r *remoteFS) do(b FSBody) wasi.Errno {
	_, f, e := r.call(b)
	if f != nil {
		f.Close()
	}
	return e
}

// Open implements wasi.FS, as do the methods below.
func (r *remoteFS) Open(path string, flags wasi.OpenFlags) (*os.File, wasi.Errno) {
	_, f, e := r.call(FSBody{Op: FSOpen, Path: path, Flags: uint32(flags)})
	switch {
	case e == wasi.Success && f == nil:
		return nil, wasi.EIO
	case e != wasi.Success && f != nil:
		f.Close()
		return nil, e
	}
	return f, e
}

func (r *remoteFS) Stat(path string, follow bool) (wasi.Filestat, wasi.Errno) {
	reply, f, e := r.call(FSBody{Op: FSStat, Path: path, Follow: follow})
	if f != nil {
		f.Close()
	}
	return reply.Stat, e
}

func (r *remoteFS) SetTimes(path string, t wasi.Times, follow bool) wasi.Errno {
	return r.do(FSBody{Op: FSSetTimes, Path: path, Atim: t.Atim, Mtim: t.Mtim, Follow: follow})
}

func (r *remoteFS) Mkdir(path string) wasi.Errno {
	return r.do(FSBody{Op: FSMkdir, Path: path})
}

func (r *remoteFS) Unlink(path string) wasi.Errno {
	return r.do(FSBody{Op: FSUnlink, Path: path})
}

func (r *remoteFS) Rmdir(path string) wasi.Errno {
	return r.do(FSBody{Op: FSRmdir, Path: path})
}

func (r *remoteFS) Rename(from, to string) wasi.Errno {
	return r.do(FSBody{Op: FSRename, Path: from, Path2: to})
}

func (r *remoteFS) Link(from, to string) wasi.Errno {
	return r.do(FSBody{Op: FSLink, Path: from, Path2: to})
}

func (r *remoteFS) Symlink(target, path string) wasi.Errno {
	return r.do(FSBody{Op: FSSymlink, Path: target, Path2: path})
}

func (r *remoteFS) Readlink(path string) (string, wasi.Errno) {
	reply, f, e := r.call(FSBody{Op: FSReadlink, Path: path})
	if f != nil {
		f.Close()
	}
	return reply.Text, e
}

// ServeFS carries out what a worker asks of a granted directory. It is the
// node's side: b comes from a worker and may hold anything.
func ServeFS(fs wasi.FS, b FSBody) (FSReply, *os.File) {
	var r FSReply
	var f *os.File
	e := wasi.ENOSYS
	switch b.Op {
	case FSOpen:
		f, e = fs.Open(b.Path, wasi.OpenFlags(b.Flags))
	case FSStat:
		r.Stat, e = fs.Stat(b.Path, b.Follow)
	case FSSetTimes:
		e = fs.SetTimes(b.Path, wasi.Times{Atim: b.Atim, Mtim: b.Mtim}, b.Follow)
	case FSMkdir:
		e = fs.Mkdir(b.Path)
	case FSUnlink:
		e = fs.Unlink(b.Path)
	case FSRmdir:
		e = fs.Rmdir(b.Path)
	case FSRename:
		e = fs.Rename(b.Path, b.Path2)
	case FSLink:
		e = fs.Link(b.Path, b.Path2)
	case FSSymlink:
		e = fs.Symlink(b.Path, b.Path2)
	case FSReadlink:
		r.Text, e = fs.Readlink(b.Path)
	}
	r.Errno = uint16(e)
	return r, f
}
