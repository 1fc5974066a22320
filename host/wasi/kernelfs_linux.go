package wasi

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/wray-project/wray/internal/fd"
)

// kernelFiles are file systems whose files are no files: reading one may wait
// for ever (trace_pipe, kmsg), which no limit of a guest ends, or show another
// process's memory, the node's among them. Numbers: linux/magic.h.
var kernelFiles = map[int64]bool{
	unix.PROC_SUPER_MAGIC: true, unix.SYSFS_MAGIC: true, unix.DEBUGFS_MAGIC: true, unix.TRACEFS_MAGIC: true,
	unix.SECURITYFS_MAGIC: true, unix.SELINUX_MAGIC: true, unix.CGROUP_SUPER_MAGIC: true, unix.CGROUP2_SUPER_MAGIC: true,
	unix.BPF_FS_MAGIC: true, unix.DEVPTS_SUPER_MAGIC: true, unix.EFIVARFS_MAGIC: true, unix.NSFS_MAGIC: true,
}

// ofKernel reports whether f is such a file, or cannot be told.
func ofKernel(f *os.File) bool {
	var fs unix.Statfs_t
	err := fd.Do(f, func(fd int) error { return unix.Fstatfs(fd, &fs) })
	return err != nil || kernelFiles[int64(fs.Type)]
}
