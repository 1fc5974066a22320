package objectstore_test

import (
	"testing"

	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/objectstore/storetest"
)

// TestHeapSpill holds the portable form to what it owes with a Disk.
func TestHeapSpill(t *testing.T) {
	storetest.RunSpill(t, storetest.Suite{Config: objectstore.Config{Heap: true}})
}

// TestMemDisk holds the disk of the suites themselves to the contract.
func TestMemDisk(t *testing.T) {
	storetest.RunDisk(t, func(_ *testing.T, limit int64) objectstore.Disk { return storetest.NewMemDisk(limit) })
}
