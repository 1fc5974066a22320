package objectstore_test

import (
	"testing"

	"github.com/wray-project/wray/objectstore"
	"github.com/wray-project/wray/objectstore/storetest"
)

// TestHeap holds the portable form to the contract, on every platform.
func TestHeap(t *testing.T) {
	storetest.Run(t, storetest.Suite{Config: objectstore.Config{Heap: true}})
}
