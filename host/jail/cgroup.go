package jail

// CgroupLimits is what a control group holds its processes to. Zero leaves a
// limit off.
type CgroupLimits struct {
	// Memory is the most bytes of memory, page cache and shared memory included.
	// The kernel kills a process that passes it.
	Memory int64
	// CPUWeight is the share of the processor under contention, from 1 to
	// 10,000, in proportion to others'; 100 is everyone's default.
	CPUWeight int
	// CPUMax is the processor time a second, in thousandths of a core.
	CPUMax int
}
