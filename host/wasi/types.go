package wasi

// Filetype is the type of a file.
type Filetype uint8

// The file types.
const (
	FiletypeUnknown Filetype = iota
	FiletypeBlockDevice
	FiletypeCharacterDevice
	FiletypeDirectory
	FiletypeRegular
	FiletypeSocketDgram
	FiletypeSocketStream
	FiletypeSymlink
)

// Fdflags are the flags of a descriptor.
type Fdflags uint16

// The descriptor flags.
const (
	FdAppend Fdflags = 1 << iota
	FdDsync
	FdNonblock
	FdRsync
	FdSync

	fdflagsAll = FdAppend | FdDsync | FdNonblock | FdRsync | FdSync
)

// Rights say what a descriptor may be used for. They bind a guest only as far
// as it takes them away from itself: what it can reach is decided by its
// grants. See path_open for what a new descriptor gets.
type Rights uint64

// The rights.
const (
	RightFdDatasync Rights = 1 << iota
	RightFdRead
	RightFdSeek
	RightFdFdstatSetFlags
	RightFdSync
	RightFdTell
	RightFdWrite
	RightFdAdvise
	RightFdAllocate
	RightPathCreateDirectory
	RightPathCreateFile
	RightPathLinkSource
	RightPathLinkTarget
	RightPathOpen
	RightFdReaddir
	RightPathReadlink
	RightPathRenameSource
	RightPathRenameTarget
	RightPathFilestatGet
	RightPathFilestatSetSize
	RightPathFilestatSetTimes
	RightFdFilestatGet
	RightFdFilestatSetSize
	RightFdFilestatSetTimes
	RightPathSymlink
	RightPathRemoveDirectory
	RightPathUnlinkFile
	RightPollFdReadwrite
	RightSockShutdown
	RightSockAccept
)

// The rights that apply to each kind of descriptor.
const (
	rightsRead  = RightFdRead
	rightsWrite = RightFdWrite | RightFdDatasync | RightFdAllocate | RightFdFilestatSetSize
	rightsFile  = rightsRead | rightsWrite | RightFdSeek | RightFdTell | RightFdFdstatSetFlags | RightFdSync |
		RightFdAdvise | RightFdFilestatGet | RightFdFilestatSetTimes | RightPollFdReadwrite
	rightsDir = RightFdFdstatSetFlags | RightFdSync | RightFdReaddir | RightFdFilestatGet | RightFdFilestatSetTimes |
		RightPathCreateDirectory | RightPathCreateFile | RightPathLinkSource | RightPathLinkTarget | RightPathOpen |
		RightPathReadlink | RightPathRenameSource | RightPathRenameTarget | RightPathFilestatGet |
		RightPathFilestatSetSize | RightPathFilestatSetTimes | RightPathSymlink | RightPathRemoveDirectory |
		RightPathUnlinkFile
	// No seek and no tell: with them, and the type of a character device, C
	// libraries would take a stream for a terminal.
	rightsStream = rightsRead | RightFdWrite | RightFdFdstatSetFlags | RightFdFilestatGet | RightPollFdReadwrite
)

// Filestat are the attributes of a file. Times are nanoseconds since 1970.
type Filestat struct {
	Dev   uint64
	Ino   uint64
	Type  Filetype
	Nlink uint64
	Size  uint64
	Atim  uint64
	Mtim  uint64
	Ctim  uint64
}

// Times are the times to give a file, in nanoseconds since 1970; OmitTime
// leaves one as it is.
type Times struct {
	Atim, Mtim int64
}

// OmitTime in Times leaves a time as it is.
const OmitTime = -1 << 63

// Flags of functions, in the guest's numbers.
const (
	lookupFollow = 1

	oflagCreat     = 1
	oflagDirectory = 2
	oflagExcl      = 4
	oflagTrunc     = 8

	fstAtim    = 1
	fstAtimNow = 2
	fstMtim    = 4
	fstMtimNow = 8
)

// Whence of a seek.
const (
	SeekSet = 0
	SeekCur = 1
	SeekEnd = 2
)
