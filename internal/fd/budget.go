package fd

import (
	"fmt"
	"sync"

	"github.com/wray-project/wray"
)

// Budget is how many descriptors of this process several may hold together. A
// nil Budget bounds nothing.
type Budget struct {
	limit int

	mu   sync.Mutex
	used int // guarded by mu
}

// NewBudget returns a budget of so many.
func NewBudget(limit int) *Budget { return &Budget{limit: limit} }

// Share returns the part of one, whom errors name. It may always have as many as
// are free: alone it has half, and leaves as much to the next.
func (b *Budget) Share(of string) *Share {
	if b == nil {
		return nil
	}
	return &Share{b: b, of: of}
}

// Used returns how many are held.
func (b *Budget) Used() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.used
}

// Share is one's part of a Budget. A nil Share bounds nothing.
type Share struct {
	b    *Budget
	of   string
	used int // guarded by b.mu
}

// Take takes n, or returns an error of CodeLimitExceeded, which names them.
func (s *Share) Take(n int) error {
	if s == nil || n == 0 {
		return nil
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	if s.used+n > s.b.limit-s.b.used-n {
		return &wray.Error{Code: wray.CodeLimitExceeded,
			Message: fmt.Sprintf("%s holds %d of %d descriptors of the node for files and objects on disk, and %d are free: no %d more", s.of, s.used, s.b.limit, s.b.limit-s.b.used, n),
			Limit:   &wray.Limit{Name: "descriptors", Value: int64(s.b.limit)},
			Hint:    "it can have as many as it leaves free: try again when some were given back, or raise the node's limit (ulimit -n, LimitNOFILE= of a systemd unit) and start it again"}
	}
	s.used += n
	s.b.used += n
	return nil
}

// Give gives n back.
func (s *Share) Give(n int) {
	if s == nil {
		return
	}
	s.b.mu.Lock()
	defer s.b.mu.Unlock()
	s.used -= n
	s.b.used -= n
}
