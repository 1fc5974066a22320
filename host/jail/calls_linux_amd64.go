package jail

import "golang.org/x/sys/unix"

const sysNewfstatat = unix.SYS_NEWFSTATAT
