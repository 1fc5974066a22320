//go:build !linux

package jail

import "errors"

// ErrNoCgroup means that this process may not make control groups.
var ErrNoCgroup = errors.New("no control group can be made")

// Cgroup is a control group; only Linux has them.
type Cgroup struct{}

// NewCgroup returns ErrNoCgroup.
func NewCgroup(string, CgroupLimits) (*Cgroup, error) { return nil, ErrNoCgroup }

// CgroupSupport returns ErrNoCgroup.
func CgroupSupport() (version int, detail string, err error) { return 0, "", ErrNoCgroup }

// Set returns ErrNoCgroup.
func (*Cgroup) Set(CgroupLimits) error { return ErrNoCgroup }

// SharesCPU reports false.
func (*Cgroup) SharesCPU() bool { return false }

// OOMKills returns 0.
func (*Cgroup) OOMKills() int { return 0 }

// String names the group.
func (*Cgroup) String() string { return "no cgroup" }

// Close does nothing.
func (*Cgroup) Close() error { return nil }
