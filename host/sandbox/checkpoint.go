package sandbox

import (
	"errors"
	"fmt"
)

// A checkpoint is a State that is taken again and again of one sandbox, which
// goes on. Of one that has changed little since its module's snapshot it is
// what Save makes: to find a few hundred pages anew costs less than to remember
// them. Of others it is a file, the keep, that holds all of memory and is laid
// under the sandbox in place of the snapshot: the pages that are the sandbox's
// own are then those that it wrote to since the last checkpoint, and only they
// are written to the file. So there is one copy of what did not change, and no
// chain of differences to be merged.

// keepFrom is how many pages a sandbox has of its own when its checkpoints
// become a keep.
const keepFrom = 512

// Checkpoint returns what the sandbox is, as Save does, at a cost that follows
// what changed since the last checkpoint. The last one is not valid any more
// when this one is there: both may be the same file. After an error it is still
// valid, unless the error is ErrTorn. Free a checkpoint that is not followed by
// another.
func (sb *Sandbox) Checkpoint(windows []Base) (*State, error) {
	if sb.running || sb.spoilt || sb.closed {
		panic("BUG: a checkpoint of a sandbox that runs, or was stopped")
	}
	if sb.module.snap == nil {
		return nil, ErrNoState
	}
	if sb.mem.keep == nil {
		own, err := sb.ownPages()
		if err != nil {
			return nil, err
		}
		if own < keepFrom {
			return sb.Save(windows)
		}
		if err := sb.mem.begin(windows); errors.Is(err, errors.ErrUnsupported) {
			return sb.Save(windows)
		} else if err != nil {
			return nil, fmt.Errorf("begin a file of checkpoints: %w", err)
		}
	} else if err := sb.mem.advance(windows); err != nil {
		return nil, err
	}
	s := sb.record()
	s.keep = sb.mem.keep
	if len(windows) > 0 {
		w := diffWriter{last: -1}
		if err := sb.diffInto(&w, windows, windows); err != nil {
			return nil, fmt.Errorf("%w: %v", ErrTorn, err)
		}
		s.setDiff(w.out)
	}
	return s, nil
}

// ErrTorn says that a checkpoint failed half way, and that there is no earlier
// one any more.
var ErrTorn = errors.New("the checkpoint is neither the old nor the new one")

// ownPages returns how many pages are not as they were mapped, about.
func (sb *Sandbox) ownPages() (n uint64, err error) {
	err = sb.mem.changed(func(from, to uint64) { n += (to - from) / statePage })
	return n, err
}

// KeepSize returns how long the file is that the next checkpoint lies in, 0
// where it will be none.
func (sb *Sandbox) KeepSize() int64 {
	if sb.mem.keep == nil {
		if own, err := sb.ownPages(); err != nil || own < keepFrom || !mayKeep() {
			return 0
		}
	}
	return int64(sb.mem.size)
}

// Kept returns the bytes of the file that a checkpoint lies in, 0 where it is
// none.
func (s *State) Kept() int64 {
	if s.keep == nil {
		return 0
	}
	return int64(s.keep.size)
}

// Free lets go of the file of a checkpoint. The sandboxes that it was loaded
// into, or taken of, keep what they have mapped.
func (s *State) Free() {
	if s.keep != nil {
		_ = s.keep.close()
		s.keep = nil
	}
}

// Keeps reports whether the sandbox lies over a file of checkpoints, so that
// Save does not apply to it: what it is, is its next checkpoint.
func (sb *Sandbox) Keeps() bool { return sb.mem.keep != nil }

// without returns what of holes no window lies over, in order, in whole pages.
func without(holes []span, windows []Base) []span {
	rest := append([]span(nil), holes...)
	for i := range windows {
		w := &windows[i]
		var cut []span
		for _, h := range rest {
			end, wend := h.at+h.n, w.At+w.Len
			if w.At >= end || wend <= h.at {
				cut = append(cut, h)
				continue
			}
			if h.at < w.At {
				cut = append(cut, span{h.at, w.At - h.at})
			}
			if wend < end {
				cut = append(cut, span{wend, end - wend})
			}
		}
		rest = cut
	}
	return rest
}

// inWindow reports whether a window lies over the page at.
func inWindow(windows []Base, at uint64) *Base {
	for i := range windows {
		if w := &windows[i]; at >= w.At && at < w.At+w.Len {
			return w
		}
	}
	return nil
}
