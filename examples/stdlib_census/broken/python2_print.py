# This is Python 2 on purpose: today's parser refuses it, so the census has a file that fails.
def greet(name):
    print "Hello, %s" % name
