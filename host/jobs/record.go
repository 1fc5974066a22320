package jobs

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/wray-project/wray/internal/clientwire"
)

// recordFile is a job's record.
const recordFile = "record.json"

// maxFile bounds a record that is read, in bytes: more than any that is written.
const maxFile = 4 << 20

func readRecord(dir string, info *clientwire.JobInfo) error {
	f, err := os.Open(filepath.Join(dir, recordFile))
	if err != nil {
		return err
	}
	defer f.Close()
	return json.NewDecoder(io.LimitReader(f, maxFile)).Decode(info)
}

// syncDir has the names in a directory outlast a power cut, where the system
// can do that. Tests have it fail.
var syncDir = func(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// writeRecord replaces a record, whole or not at all, and so that it is there
// after a power cut.
func writeRecord(dir string, info *clientwire.JobInfo) error {
	b, err := json.Marshal(info)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".record-") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, recordFile))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	return syncDir(dir)
}
