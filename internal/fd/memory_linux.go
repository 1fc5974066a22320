package fd

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// Memory returns the length in bytes of c and how many of them have pages, where
// c is a memfd: reading and writing it neither waits nor has effects elsewhere.
// ErrNotMemory for everything else.
func Memory(c syscall.Conn) (size, pages int64, err error) {
	err = Do(c, func(fd int) error {
		var st unix.Stat_t
		var fs unix.Statfs_t
		if err := errors.Join(unix.Fstat(fd, &st), unix.Fstatfs(fd, &fs)); err != nil {
			return err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFREG || fs.Type != unix.TMPFS_MAGIC {
			return ErrNotMemory
		}
		size, pages = st.Size, st.Blocks*512 // whatever the file system's blocks are: stat(2)
		return nil
	})
	return size, pages, err
}
