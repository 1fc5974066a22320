package scheduler

// Refusal says why a peer gives an attempt back.
type Refusal uint8

// The refusals.
const (
	// NoRoom: the peer is not asked again before it says what it holds.
	NoRoom Refusal = iota

	// NotNow: the peer cannot run tasks of the job, for a reason that may pass,
	// such as code that did not reach it. It is asked for those of other jobs, and
	// for those of this one again after a pause, which doubles with each refusal.
	NotNow

	// OnlyHere: the task needs something that only this node has, and is never
	// lent again.
	OnlyHere
)

// How long a job avoids a peer: nanoseconds.
const (
	minAvoided = 1_000_000_000
	maxAvoided = 60_000_000_000
)

// avoidance is a peer that could not run tasks of a job. It is kept when its
// time is over, so that the next pause is longer, until the peer has run one or
// is gone.
type avoidance struct {
	peer  PeerID
	until int64
	pause int64
}

// avoid has j ask a peer no more for a while. Refusals of attempts that were lent
// before the first count once.
func (j *job) avoid(id PeerID, now int64) {
	for i := range j.avoided {
		if a := &j.avoided[i]; a.peer == id {
			if a.until <= now {
				a.pause = min(2*a.pause, maxAvoided)
				a.until = addSaturated(now, a.pause)
			}
			return
		}
	}
	j.avoided = append(j.avoided, avoidance{peer: id, until: addSaturated(now, minAvoided), pause: minAvoided})
}

// avoids reports whether j asks a peer for nothing now.
func (j *job) avoids(id PeerID, now int64) bool {
	for i := range j.avoided {
		if j.avoided[i].peer == id {
			return j.avoided[i].until > now
		}
	}
	return false
}

// forgive has j ask a peer as any other.
func (j *job) forgive(id PeerID) {
	for i := range j.avoided {
		if j.avoided[i].peer == id {
			last := len(j.avoided) - 1
			j.avoided[i] = j.avoided[last]
			j.avoided = j.avoided[:last]
			return
		}
	}
}

// forgives returns when j next asks a peer again that it avoids now; 0: never.
func (j *job) forgives(now int64) int64 {
	var next int64
	for i := range j.avoided {
		if at := j.avoided[i].until; at > now && (next == 0 || at < next) {
			next = at
		}
	}
	return next
}
