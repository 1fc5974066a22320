package wasi

import (
	"os"
	"path"
	"strings"
)

// OpenFlags say how FS.Open opens a file.
type OpenFlags uint32

// The open flags. Without OpenRead and OpenWrite the file is opened as for
// reading.
const (
	OpenRead OpenFlags = 1 << iota
	OpenWrite
	OpenAppend    // every write goes to the end
	OpenCreate    // make the file if it is not there
	OpenExcl      // with OpenCreate: it must not be there, not even as a symbolic link
	OpenTrunc     // cut the file to nothing
	OpenDirectory // it must be a directory
	OpenNoFollow  // ELOOP (or ENOTDIR with OpenDirectory) for a symbolic link at the end
	OpenSync      // writes wait for the disk, data and attributes
	OpenDsync     // writes wait for the disk, data
)

// writes are the flags that change something.
const openWrites = OpenWrite | OpenAppend | OpenCreate | OpenTrunc

// Writes reports whether an open with these flags may change something.
func (f OpenFlags) Writes() bool { return f&openWrites != 0 }

// FS is a directory tree of the host that a guest is granted: the one seam
// through which it reaches files. Each method is one request and one answer of
// plain values, so that a process without rights of its own can have another
// one do it; the opened file is a descriptor.
//
// Paths are relative to the tree, with slashes; "." is the tree itself. They
// come cleaned: not empty, no zero byte, no empty elements, no "." within, no
// slash at the end; ".." may be anywhere. An FS must resolve them, and the
// symbolic links on the way, inside the tree, and answer EPERM for a path that
// leads out of it. Paths whose last element is "." or ".." come only to Open
// and Stat.
//
// Methods may be called from many goroutines.
type FS interface {
	// Open opens a regular file or a directory, and nothing else: EACCES for
	// devices, pipes and sockets. The caller closes the file.
	Open(path string, flags OpenFlags) (*os.File, Errno)
	// Stat returns the attributes of what path names, or of the symbolic link
	// itself unless follow is set.
	Stat(path string, follow bool) (Filestat, Errno)
	// SetTimes sets times, of the symbolic link itself unless follow is set.
	SetTimes(path string, t Times, follow bool) Errno
	Mkdir(path string) Errno
	// Unlink removes what is not a directory; EISDIR (or EPERM) for one.
	Unlink(path string) Errno
	// Rmdir removes an empty directory; ENOTDIR for anything else.
	Rmdir(path string) Errno
	// Rename moves from to to, in place of what is there, as rename(2) does.
	Rename(from, to string) Errno
	// Link makes to a hard link of from, which is not followed.
	Link(from, to string) Errno
	// Symlink makes path a symbolic link with the given target; EPERM for a
	// target that is absolute or, as far as names tell, leads out of the tree.
	Symlink(target, path string) Errno
	Readlink(path string) (string, Errno)
}

// ReadOnly returns fs without its changes: every one is EROFS. It is for the
// process that opens files on behalf of others; a System needs no more than
// Dir.ReadOnly.
func ReadOnly(fs FS) FS { return readOnly{fs} }

type readOnly struct{ fs FS }

func (r readOnly) Open(path string, flags OpenFlags) (*os.File, Errno) {
	if flags&openWrites != 0 {
		return nil, EROFS
	}
	return r.fs.Open(path, flags)
}

func (r readOnly) Stat(path string, follow bool) (Filestat, Errno) { return r.fs.Stat(path, follow) }
func (r readOnly) Readlink(path string) (string, Errno)            { return r.fs.Readlink(path) }
func (readOnly) SetTimes(string, Times, bool) Errno                { return EROFS }
func (readOnly) Mkdir(string) Errno                                { return EROFS }
func (readOnly) Unlink(string) Errno                               { return EROFS }
func (readOnly) Rmdir(string) Errno                                { return EROFS }
func (readOnly) Rename(string, string) Errno                       { return EROFS }
func (readOnly) Link(string, string) Errno                         { return EROFS }
func (readOnly) Symlink(string, string) Errno                      { return EROFS }

// NoSymlinks returns fs without the making of symbolic links: EPERM. Like
// ReadOnly it is for the process that opens files on behalf of others; a
// System needs no more than Dir.Symlinks unset.
func NoSymlinks(fs FS) FS { return noSymlinks{fs} }

type noSymlinks struct{ FS }

func (noSymlinks) Symlink(string, string) Errno { return EPERM }

// staysInside reports whether a symbolic link at p with the given target leads
// to a place in the tree, as far as names tell. A backslash separates elements
// on some systems.
func staysInside(p, target string) bool {
	if target == "" || target[0] == '/' || strings.ContainsRune(target, '\\') {
		return false
	}
	p = path.Join(path.Dir(p), target)
	return p != ".." && !strings.HasPrefix(p, "../")
}
