package worker

import (
	"strings"
	"testing"

	"github.com/wray-project/wray"
	"github.com/wray-project/wray/scheduler"
)

// TestQuotaNamed has tasks ask for more than their tenant's quota, on a node alone
// and on one that waits whether others come: the error names the quota.
func TestQuotaNamed(t *testing.T) {
	for _, patience := range []int64{0, 1} {
		for flag, res := range map[string]wray.Resources{"cpu": {CPU: wray.OneCPU}, "memory": {Memory: 64 << 20}, "": {CPU: 8 * wray.OneCPU}} {
			w := &Worker{cfg: Config{Tenant: "beta", Quota: wray.Quota{CPU: int64(wray.OneCPU) / 2, Memory: 32 << 20}, Capacity: wray.Resources{CPU: 4 * wray.OneCPU, Memory: 1 << 30}}}
			if flag == "" { // nobody has set a bound but the machine
				w.cfg.Quota = wray.Quota{Tasks: 1}
			}
			w.cfg.Slots, w.cfg.Sandboxes = 4, 4
			w.cfg.bound()
			s, err := scheduler.New(scheduler.Config{Node: "st", Capacity: w.cfg.Capacity, Quota: w.cfg.allowed(), Patience: patience})
			if err != nil {
				t.Fatal(err)
			}
			job := wray.ID{Owner: 1, Seq: 1}
			if err := s.AddJob(0, job); err != nil {
				t.Fatal(err)
			}
			var failure *wray.Error
			if err := s.Submit(0, &scheduler.Spec{ID: wray.ID{Owner: 1, Seq: 2}, Job: job, Resources: res}); err != nil {
				failure, _ = w.ofQuota(err).(*wray.Error)
			}
			s.Tick(1 << 40)
			for _, d := range s.Ready(nil) {
				if d.Kind == scheduler.Done {
					failure = w.quotaOf(d.Err)
				}
			}
			if failure == nil || failure.Code != wray.CodeUnschedulable {
				t.Fatalf("%v of %q: %v", res, flag, failure)
			}
			want := "an operator of the cluster can raise it: wray quota set beta --" + flag + " VALUE"
			named := failure.Limit != nil && failure.Limit.Name == "quota "+flag && strings.Contains(failure.Message, "the quota of tenant beta") && strings.HasSuffix(failure.Hint, want)
			if named != (flag != "") || flag == "" && strings.Contains(failure.Error()+failure.Hint, "quota") {
				t.Errorf("%v of %q, patience %d: %v\n%s", res, flag, patience, failure, failure.Hint)
			}
		}
	}
}
