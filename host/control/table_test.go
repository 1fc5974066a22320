package control_test

import (
	"testing"

	"github.com/wray-project/wray/host/control"
)

// FuzzDecode reads records as another version, or another program with the same
// etcd, may have written them.
func FuzzDecode(f *testing.F) {
	f.Add("job/acme/a", []byte("\x01\xa1\x01\x02"))
	f.Add("job/acme/", []byte{})
	f.Add("job//x", []byte("\x02"))
	f.Add("kv/a/b/c", []byte("\x01\x9f"))
	jobs := control.Jobs(control.NewMemory(control.MemoryOptions{}))
	f.Fuzz(func(t *testing.T, key string, value []byte) {
		kind, tenant, name, err := control.SplitKey(key)
		if err == nil {
			if again, err := control.Key(kind, tenant, name); again != key || err != nil {
				t.Errorf("%q is %q, %q, %q, which is %q, %v", key, kind, tenant, name, again, err)
			}
		}
		e, derr := jobs.Decode(control.Record{Key: key, Value: value})
		if derr == nil && (err != nil || e.Name != name || e.Tenant != tenant) {
			t.Errorf("%q decodes, %v, to %q of %q", key, err, e.Name, e.Tenant)
		}
	})
}
