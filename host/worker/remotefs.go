package worker

import (
	"context"
	"os"

	"github.com/wray-project/wray/host/wasi"
	"github.com/wray-project/wray/internal/link"
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
	_, f, e := r.call(FSBody{Op: FSOpen, Path: []byte(path), Flags: uint32(flags)})
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
	reply, f, e := r.call(FSBody{Op: FSStat, Path: []byte(path), Follow: follow})
	if f != nil {
		f.Close()
	}
	return reply.Stat, e
}

func (r *remoteFS) SetTimes(path string, t wasi.Times, follow bool) wasi.Errno {
	return r.do(FSBody{Op: FSSetTimes, Path: []byte(path), Atim: t.Atim, Mtim: t.Mtim, Follow: follow})
}

func (r *remoteFS) Mkdir(path string) wasi.Errno {
	return r.do(FSBody{Op: FSMkdir, Path: []byte(path)})
}

func (r *remoteFS) Unlink(path string) wasi.Errno {
	return r.do(FSBody{Op: FSUnlink, Path: []byte(path)})
}

func (r *remoteFS) Rmdir(path string) wasi.Errno {
	return r.do(FSBody{Op: FSRmdir, Path: []byte(path)})
}

func (r *remoteFS) Rename(from, to string) wasi.Errno {
	return r.do(FSBody{Op: FSRename, Path: []byte(from), Path2: []byte(to)})
}

func (r *remoteFS) Link(from, to string) wasi.Errno {
	return r.do(FSBody{Op: FSLink, Path: []byte(from), Path2: []byte(to)})
}

func (r *remoteFS) Symlink(target, path string) wasi.Errno {
	return r.do(FSBody{Op: FSSymlink, Path: []byte(target), Path2: []byte(path)})
}

func (r *remoteFS) Readlink(path string) (string, wasi.Errno) {
	reply, f, e := r.call(FSBody{Op: FSReadlink, Path: []byte(path)})
	if f != nil {
		f.Close()
	}
	return string(reply.Text), e
}

// ServeFS carries out what a worker asks of a granted directory. It is the
// node's side: b comes from a worker and may hold anything.
func ServeFS(fs wasi.FS, b FSBody) (FSReply, *os.File) {
	var r FSReply
	var f *os.File
	e := wasi.ENOSYS
	path, path2 := string(b.Path), string(b.Path2)
	switch b.Op {
	case FSOpen:
		f, e = fs.Open(path, wasi.OpenFlags(b.Flags))
	case FSStat:
		r.Stat, e = fs.Stat(path, b.Follow)
	case FSSetTimes:
		e = fs.SetTimes(path, wasi.Times{Atim: b.Atim, Mtim: b.Mtim}, b.Follow)
	case FSMkdir:
		e = fs.Mkdir(path)
	case FSUnlink:
		e = fs.Unlink(path)
	case FSRmdir:
		e = fs.Rmdir(path)
	case FSRename:
		e = fs.Rename(path, path2)
	case FSLink:
		e = fs.Link(path, path2)
	case FSSymlink:
		e = fs.Symlink(path, path2)
	case FSReadlink:
		var text string
		text, e = fs.Readlink(path)
		r.Text = []byte(text)
	}
	r.Errno = uint16(e)
	return r, f
}
