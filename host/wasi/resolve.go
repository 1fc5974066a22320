package wasi

import "bytes"

// place is a path that a guest named, in terms of a grant.
type place struct {
	dir   *Dir
	mount int
	// path is cleaned, as FS wants it: the place of the descriptor in its
	// grant, joined with the guest's path.
	path string
	// slash tells that the guest's path ended in a slash, or in "/.": what it
	// names must be a directory, and a symbolic link to one is followed.
	slash bool
	// dot tells that the last element was "." or "..": the name of a directory
	// that is there, and no entry to make, move or remove.
	dot bool
}

var slash = []byte{'/'}

// resolve returns the place of the path of n bytes at p, relative to fd,
// which must have all of need. Links are not looked at; that is FS's part.
func (s *System) resolve(mem memory, fd uint64, p, n uint32, need Rights) (place, Errno) {
	sl, e := s.get(fd)
	if e != Success {
		return place{}, e
	}
	if !sl.dir {
		return place{}, ENOTDIR
	}
	if need&^sl.base != 0 {
		return place{}, ENOTCAPABLE
	}
	name, ok := mem.slice(p, uint64(n))
	if !ok {
		return place{}, EFAULT
	}
	s.moved += uint64(min(n, MaxPath))
	at := place{dir: &s.cfg.Dirs[sl.mount], mount: sl.mount}
	switch {
	case n == 0:
		return place{}, ENOENT
	case n > MaxPath:
		return place{}, ENAMETOOLONG
	case name[0] == '/':
		return place{}, EPERM // no guest names a path of the host
	case bytes.IndexByte(name, 0) >= 0:
		return place{}, EINVAL
	}

	buf := s.path[:0]
	if sl.path != "." {
		buf = append(buf, sl.path...)
	}
	// A path may not lead out of the descriptor's directory. At the top of the
	// grant FS sees to that, links included; below it, going up is counted by
	// elements, which is the stricter where links lead down.
	depth, below := 0, sl.path != "."
	for more := true; more; {
		var elem []byte
		elem, name, more = bytes.Cut(name, slash)
		switch {
		case len(elem) == 0: // "a//b", or the end of "a/"
			at.slash = true
			continue
		case string(elem) == ".":
			at.slash, at.dot = true, true
			continue
		case string(elem) == "..":
			at.slash, at.dot = true, true
			depth--
		default:
			at.slash, at.dot = false, false
			depth++
		}
		if below && depth < 0 {
			return place{}, EPERM
		}
		if len(buf) > 0 {
			buf = append(buf, '/')
		}
		buf = append(buf, elem...)
	}
	s.path = buf[:0]
	switch {
	case len(buf) > MaxPath:
		return place{}, ENAMETOOLONG
	case len(buf) == 0:
		at.path = "."
	case string(buf) == sl.path:
		at.path = sl.path // nothing to copy
	default:
		at.path = string(buf)
	}
	return at, Success
}
