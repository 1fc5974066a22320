package fd

import (
	"errors"
	"testing"

	"github.com/wray-project/wray"
)

// Who takes all that he may have leaves others theirs, and all of it comes back.
func TestBudget(t *testing.T) {
	b := NewBudget(100)
	fill := func(s *Share) (n int) {
		for s.Take(1) == nil {
			n++
		}
		return n
	}
	one, two := b.Share("tenant one"), b.Share("tenant two")
	n, m := fill(one), fill(two)
	if n != 50 || m != 25 {
		t.Errorf("the first has %d, the second %d", n, m)
	}
	if err := b.Share("tenant three").Take(12); err != nil {
		t.Error(err)
	}
	err := one.Take(1)
	var e *wray.Error
	if !errors.As(err, &e) || e.Code != wray.CodeLimitExceeded || e.Limit.Name != "descriptors" || e.Hint == "" {
		t.Errorf("passing it: %v", err)
	}
	one.Give(n)
	two.Give(m)
	if b.Used() != 12 {
		t.Errorf("%d are held", b.Used())
	}
	var none *Budget
	if s := none.Share("x"); s.Take(1<<30) != nil {
		t.Error("no budget bounds something")
	}
}
